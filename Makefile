# Set-up is skipped when nothing changed: .venv/.ready is newer than what it was made from.
PYTHON ?= python3
RUN := .venv/bin/
QUICK := not proof and not vllm

.PHONY: help setup demo test check bench proof vllm vllm-recordings test-vllm clean

help:
	@echo "make demo             set up, then the whole road once: what it made and where is printed at the end"
	@echo "make test             set up, then every test this machine can run; what is skipped is named with its reason"
	@echo "make check            format, lint, types, imports"
	@echo "make bench            measurements as ratios; results in bench/results/"
	@echo "make proof            what takes long: kills, matrices"
	@echo "make vllm             a real vLLM on the CPU, in an environment of its own (150 s, 5.5 GB)"
	@echo "make vllm-recordings  record the real vLLM again, for the simulated engine's contract test"
	@echo "make test-vllm        the tests that need the real vLLM"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt deploy/system-packages.sh
	@bash deploy/system-packages.sh
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (a minute the first time)"
	@$(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch .venv/.ready

demo: setup
	@$(RUN)tally demo --keep

test: setup
	@$(RUN)python -m pytest -n 3 --dist loadfile -m "$(QUICK)" --cov --cov-report=term:skip-covered

check: setup
	@$(RUN)ruff format --check .
	@$(RUN)ruff check .
	@$(RUN)mypy
	@$(RUN)python -m pytest -q tests/unit/test_imports_run_one_way.py

bench: setup
	@$(RUN)python -m bench

proof: setup
	@TALLY_PROOF=1 $(RUN)python -m pytest -m "proof" --no-cov

vllm: setup
	@bash tests/engine/install.sh

vllm-recordings: vllm
	@$(RUN)python tests/reference/engine_recorder.py

test-vllm: vllm
	@$(RUN)python -m pytest -m vllm --no-cov

clean:
	rm -rf .venv build dist *.egg-info
