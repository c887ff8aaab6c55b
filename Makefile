PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROCESSES ?= auto

.PHONY: demo test test-slow lint types clean

demo: $(VENV)/.demo  ## audit the bundled data sets and say where the results lie
	$(BIN)/jaxpref demo

test: $(VENV)/.test  ## install the test extra and run every test that needs no special machine
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile

test-slow: $(VENV)/.test  ## the tests that take longer
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "slow and not gpu and not browser" tests

lint: $(VENV)/.test  ## style and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test  ## static types of the package and its tests
	$(BIN)/pyright

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[report]'
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) jaxpref-demo .pytest_cache .ruff_cache .hypothesis
