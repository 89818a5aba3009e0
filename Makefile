# make demo: environment, then the whole loop on the embedded default.
# make test: environment, lint, types, tests, wheel. Both run on a fresh machine.
# Two torch processes on few cores stall each other unless waiting threads sleep.
export OMP_WAIT_POLICY := passive
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo check test test-full format
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/d2i1 demo --output_dir runs/demo --overwrite

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest
	rm -rf build && $(BIN)/python -m build --wheel --no-isolation --outdir dist

test-full: check
	$(BIN)/pytest -m "not gpu"
	$(BIN)/pytest -m gpu || test $$? -eq 5
	rm -rf build && $(BIN)/python -m build --wheel --no-isolation --outdir dist

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone, so that nothing else chooses its build
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
