# make demo    install, compress the demo model to 4 bit, measure it, let both write
# make test    install what the tests need, run them
# make check   test, and lint, types, import contracts
# make nightly check, and the slow suites

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= demo-int4
OPENING ?= "It was a dark night, and the"

.PHONY: demo test check lint nightly clean

demo: $(VENV)/.run
	$(BIN)/whet compress demo --recipe int4 -o $(OUT) --overwrite
	$(BIN)/whet measure $(OUT) --against demo
	$(BIN)/whet run demo $(OPENING) --max-tokens 60 --seed 1
	$(BIN)/whet run $(OUT) $(OPENING) --max-tokens 60 --seed 1
	@echo "report: $(CURDIR)/$(OUT)/report.html"

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow"

check: lint test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

nightly: lint $(VENV)/.test
	$(BIN)/python -m pytest -n 2

clean:
	rm -rf $(VENV) $(OUT) dist build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e ".[compress]"
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e ".[compress,interop,test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e ".[compress,interop,test,dev]"
	@touch $@
