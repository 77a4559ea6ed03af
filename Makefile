# make run   the whole pipeline on the embedded sample      make test   the tests
# make lint  ruff, mypy, import-linter                      make bench  the benchmarks
# make viz   the pipeline's lineage in a browser            make mlflow the tracked runs
# make docs  the documentation as a site, in build/docs
# make schedule   retraining every night, with Dagster
# make gpu   tests, the sample and speed on a GPU in 8 minutes; tiny shapes without one
# make wheels   every package as a file in WHEELS, for a machine without a package registry
# More arguments: make run ARGS="--params train.rounds=12"
# Packages from files instead of the registry: make run WHEELS=folder
# A Python that has torch already: make gpu PYTHON=python3 (what it lacks comes from WHEELS)

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

WHEELS ?=
ifneq ($(WHEELS),)
export PIP_NO_INDEX := $(if $(filter wheels,$(MAKECMDGOALS)),,1)
export PIP_FIND_LINKS := $(abspath $(WHEELS))
endif

# With PYTHON given, `make gpu` runs in it as it is; else in the environment that is made here.
GIVEN := $(filter command environment,$(firstword $(origin PYTHON)))
GPU_PYTHON := $(if $(GIVEN),$(PYTHON),$(BIN)/python)
GPU_SITE := .gpu/site
GPU_READY := $(if $(GIVEN),$(if $(WHEELS),.gpu/.ready),$(READY) .venv/.bench)
# What the benchmark on a GPU compares with.
TRL := trl==1.16.0

export DO_NOT_TRACK := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test lint mutate bench gpu wheels docs viz schedule mlflow
.DELETE_ON_ERROR:

run: $(READY)
	$(BIN)/kedro run $(ARGS)

# Whole runs come first, in the order of the folders: at the end both processes have short tests.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# All of it takes hours; one module: make mutate ARGS="versatune.mixing.formulas*"
mutate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/mutmut run $(ARGS)
	$(BIN)/mutmut results

bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(ARGS)

gpu: $(GPU_READY)
	PYTHONPATH="src:$(GPU_SITE):$$PYTHONPATH" $(GPU_PYTHON) -m tests.benchmarks.gpu $(ARGS)

wheels: $(READY)
	$(BIN)/pip wheel --wheel-dir "$(or $(WHEELS),wheels)" -r requirements.lock "setuptools>=77" $(TRL)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

viz: $(READY)
	PYTHONWARNINGS=ignore $(BIN)/kedro viz run --host 127.0.0.1 $(ARGS)

schedule: $(READY)
	PYTHON="$(CURDIR)/$(BIN)/python" deploy/dagster/start.sh

mlflow: $(READY)
	PYTHONWARNINGS=ignore $(BIN)/kedro mlflow ui --host 127.0.0.1 $(ARGS)

# torch first, alone: the pins of everything else then find it in place.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "versatune needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

# Without it the table lacks a column, and nothing else.
.venv/.bench: $(READY)
	-$(BIN)/pip install --quiet --no-deps $(TRL) && touch $@

# A second version of a package among the wheels would be an error: keep one of each.
.gpu/.ready: $(wildcard $(WHEELS)/*.whl)
	$(PYTHON) -m pip install --quiet --no-deps --no-compile --upgrade --target $(GPU_SITE) $^
	@touch $@
