# make demo:      the whole loop on the embedded default.
# make quick:     lint, types, and the tests that run no command, no process and no Hub: for every
#                 save. Nobody keeps a list of them: tests/conftest.py marks them by what they call.
# make test:      lint, types, all tests but the slow ones, wheel: before every commit.
# make test-full: with the slow tests and those that need a GPU.
# make test-lowest: the core of the tests on the lowest versions that pyproject.toml allows. For torch
#                 this is the version of constraints.txt; TORCH=torch==2.6.0 tries another one.
# Each makes its own environment first, so all run on a fresh machine.
#
# Tests run in WORKERS processes of one thread each (tests/environment.py).
# Two torch processes on few cores stall each other unless waiting threads sleep.
export OMP_WAIT_POLICY := passive
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
TORCH ?= $(shell grep ^torch== constraints.txt)
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

LOWEST := .venv-lowest/bin
DATA := checkpoints dataset diff2in1 sources tasks creation
CORE := $(DATA:%=tests/d2i1_data/%) tests/test_formats.py tests/d2i1_train/test_train_unet.py

.PHONY: demo check quick test test-full test-lowest format
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/d2i1 demo --output_dir runs/demo --overwrite

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quick: check
	$(PYTEST) -m "quick and not slow and not gpu"

test: check
	$(PYTEST)
	rm -rf build && $(BIN)/python -m build --wheel --no-isolation --outdir dist

test-full: check
	$(PYTEST) -m "not slow and not gpu"
	$(BIN)/pytest -m "slow and not gpu"
	$(BIN)/pytest -m gpu || test $$? -eq 5
	rm -rf build && $(BIN)/python -m build --wheel --no-isolation --outdir dist

test-lowest: .venv-lowest/installed
	$(LOWEST)/pytest --numprocesses $(WORKERS) --dist worksteal $(CORE)

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone, so that nothing else chooses its build
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# `name>=version` of pyproject.toml becomes `name==version`
.venv-lowest/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-lowest
	sed -n '/^dependencies/,/^]/s/^ *"\([a-z0-9-]*\)[^>]*>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml \
		| grep -v ^torch== > .venv-lowest/constraints.txt
	$(LOWEST)/pip install --quiet $(TORCH)
	$(LOWEST)/pip install --quiet --constraint .venv-lowest/constraints.txt $(TORCH) --editable ".[import]" \
		pytest pytest-timeout pytest-xdist
	touch $@
