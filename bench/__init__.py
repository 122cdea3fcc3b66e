"""Measurements: `python -m bench` runs all of them, `python -m bench NAME…` some, `--quick` small ones.

Each is a module here with a `measure(quick)`. It prints its figures as a table and writes `bench/results/NAME.json`
with the commit and the machine. What is compared (Tallygrid, nginx, nothing between) runs in one go, one after the
other in turns, so that ratios hold on a slow or a busy machine where absolute figures do not.
"""
