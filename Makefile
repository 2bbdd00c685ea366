# Every target sets up what it needs, so `make quickstart` and `make test` work in a fresh clone. `make` lists the targets.
SHELL := /bin/bash
VENV ?= .venv
PY := $(VENV)/bin/python
OUT ?= outputs/quickstart
export VENV

.PHONY: help setup quickstart real tables test test-slow unit lint format docs-check wheel clean

help:  ## list the targets
	@echo "relay_verl: new here? 'make quickstart' trains a tiny relay on CPU; README.md has the rest. Targets:"
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/; s/^/  /' | expand -t 16

# .ci/setup writes `ready` last, so an interrupted setup starts again.
$(VENV)/ready: .ci/requirements-cpu.txt .ci/setup setup.cfg
	.ci/setup

setup: $(VENV)/ready  ## create the virtual environment in .venv, for CPU (VENV=... names another)

quickstart: $(VENV)/ready  ## build a tiny pair, train its relay, evaluate it; in outputs/quickstart, 20 minutes
	$(PY) -m relay_verl quickstart --out $(OUT)

real: $(VENV)/ready  ## the whole chain on a real pair, 0.5B and 1.5B; in outputs/real, hours
	$(PY) examples/real/real.py --out outputs/real

tables: $(VENV)/ready  ## the paper's tables and claims on the tiny world, each row with 3 or 5 seeds; in outputs/tables, hours
	$(PY) examples/tiny/tables.py --out outputs/tables

unit: $(VENV)/ready  ## run the unit tests: minutes, no network
	$(PY) -m pytest -q tests/unit

# End-to-end tests run even if a unit test failed; the target fails if either did.
test: $(VENV)/ready  ## run the tests: unit, contract, and end to end on the real trainer without the slow ones
	$(PY) -m pytest -q --durations=20 -n 2 --dist loadfile --timeout 240 tests/unit tests/contract; unit=$$?; \
	$(PY) -m pytest -q --durations=20 -m "not slow" tests/e2e && exit $$unit

test-slow: $(VENV)/ready  ## run the slow end-to-end tests: further runs, each minutes of starting engines
	$(PY) -m pytest -q --durations=20 -m slow tests/e2e

lint: $(VENV)/ready  ## run ruff, mypy, import-linter (rooms import one way) and codespell
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

format: $(VENV)/ready  ## let ruff fix and format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs-check: $(VENV)/ready  ## check what the READMEs name (commands, links, keys, metrics, numbers of results); run the docstrings' examples
	$(PY) -m pytest -q tests/contract/test_docs.py tests/contract/test_commands.py tests/contract/test_project_files.py tests/contract/test_results.py
	$(PY) -m pytest -q --doctest-modules $(shell grep -rl '>>>' relay_verl --include='*.py')

# setuptools would pack what an earlier build left in build/.
wheel: $(VENV)/ready  ## build the wheel, in dist/
	rm -rf build
	$(PY) -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:  ## delete what the targets left behind, outputs included; .venv stays
	rm -rf outputs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
