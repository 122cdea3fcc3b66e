# Set-up is skipped when nothing changed: .venv/.ready is newer than what it was made from.
PYTHON ?= python3
RUN := .venv/bin/
QUICK := not proof and not vllm
# Programs that tests start shall not compile us each anew, even where the shell asks Python to keep no bytecode.
test coverage proof: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test coverage check bench bench-billion proof parts kafka s3 vllm vllm-recordings test-vllm clean

help:
	@echo "make demo             set up, then the whole road once: what it made and where is printed at the end"
	@echo "make test             set up, then every test this machine can run; what is skipped is named with its reason"
	@echo "make coverage         the same, with the lines that no test reaches"
	@echo "make check            format, lint, types, imports"
	@echo "make bench            measurements as ratios; results in bench/results/"
	@echo "make bench-billion    a billion events through Kafka (12 min, 40 GB of free disk)"
	@echo "make proof            what takes long: kills, a thousand seeds, matrices"
	@echo "make kafka            Apache Kafka on loopback, until Ctrl-C; prints what TALLY_KAFKA is to be"
	@echo "make s3               the S3 server that tests use (versitygw, by Go's module proxy)"
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

test: setup parts
	@$(RUN)python -m pytest -n 3 --dist loadfile -m "$(QUICK)"

coverage: setup parts
	@$(RUN)python -m pytest -n 3 --dist loadfile -m "$(QUICK)" --cov --cov-report=term:skip-covered

check: setup
	@$(RUN)ruff format --check .
	@$(RUN)ruff check .
	@$(RUN)mypy
	@$(RUN)python -m pytest -q tests/unit/test_imports_run_one_way.py

bench: setup
	@$(RUN)python -m bench

bench-billion: setup parts
	@$(RUN)python -m bench billion

# PySpark only for these: 400 MB.
proof: setup parts
	@$(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,spark]'
	@TALLY_PROOF=1 $(RUN)python -m pytest -m "proof" --no-cov

# The real parts that tests use; where one can't be fetched, the tests that need it are skipped by name.
parts:
	@bash tests/kafka/install.sh || echo "Apache Kafka could not be fetched: tests that need it are skipped"
	@bash tests/s3/install.sh || echo "the S3 server could not be built: tests that need it are skipped"

kafka: setup
	@bash tests/kafka/start.sh

s3:
	@bash tests/s3/install.sh

vllm: setup
	@bash tests/engine/install.sh

vllm-recordings: vllm
	@$(RUN)python tests/reference/engine_recorder.py

test-vllm: vllm
	@$(RUN)python -m pytest -m vllm --no-cov

clean:
	rm -rf .venv build dist *.egg-info
