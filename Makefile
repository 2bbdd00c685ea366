# Each target sets up what it needs; `make quickstart` and `make test` work on a fresh clone.
SHELL := /bin/bash
VENV ?= .venv
PY := $(VENV)/bin/python
OUT ?= outputs/quickstart
export VENV

.PHONY: help setup quickstart real tables test unit lint format docs-check clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/ready: .ci/requirements-cpu.txt .ci/setup setup.cfg
	.ci/setup

setup: $(VENV)/ready  ## the virtual environment, for CPU

quickstart: $(VENV)/ready  ## build the tiny pair, train its relay, evaluate: all in outputs/quickstart; 20 min
	$(PY) -m relay_verl quickstart --out $(OUT)

real: $(VENV)/ready  ## the chain on a real pair, 0.5B and 1.5B, in outputs/real; hours
	$(PY) examples/real/real.py --out outputs/real

tables: $(VENV)/ready  ## the paper's tables on the tiny world: every row, three seeds; hours
	$(PY) examples/tiny/tables.py --out outputs/tables

unit: $(VENV)/ready  ## the tests that take seconds
	$(PY) -m pytest -q tests/unit

test: $(VENV)/ready  ## all tests: unit, contract, and end to end on the real trainer; the last run whatever the first did
	$(PY) -m pytest -q -n 2 --dist loadfile tests/unit tests/contract; unit=$$?; \
	$(PY) -m pytest -q tests/e2e && exit $$unit

lint: $(VENV)/ready  ## ruff, mypy, codespell, and that rooms import one way
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

format: $(VENV)/ready  ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs-check: $(VENV)/ready  ## every command and file the README names exists; docstring examples run
	$(PY) -m pytest -q tests/contract/test_docs.py
	$(PY) -m pytest -q --doctest-modules $(shell grep -rl '>>>' relay_verl --include='*.py')

clean:  ## what the targets left behind
	rm -rf outputs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
