# make demo · make test · make check · make bench: each sets up what it needs on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two test files at a time, each on one thread: more threads than processors cost more than they bring. Numba, when its
# threads start, sets those of every other library too.
PYTEST := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all check format bench reports clean

demo: $(VENV)/.installed  ## impute the bundled sample of real cells and draw what happened
	$(BIN)/scautoimpute demo --output demo

test: $(VENV)/.installed-dev  ## the test suite, without the slow marks
	$(PYTEST)

test-all: $(VENV)/.installed-dev  ## every test
	$(PYTEST) -m ""

check: $(VENV)/.installed-dev  ## format, lint, types, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_house.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev  ## a short run of the recovery benchmark
	$(BIN)/python benchmarks/recovery.py --seeds 1 --shares 0.1

reports: $(VENV)/.installed-dev  ## the reports of four real runs: make reports DATA=folder (of the files that the script names)
	$(BIN)/python benchmarks/reports.py $(DATA)

clean:
	rm -rf $(VENV) demo dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable ".[dev,compare]"
	touch $@
