# make run   the whole pipeline on the embedded sample      make test   the tests
# make lint  ruff, mypy, import-linter                      make bench  the benchmarks
# make viz   the pipeline's lineage in a browser            make mlflow the tracked runs
# make docs  the documentation as a site, in build/docs
# make schedule   retraining every night, with Dagster
# More arguments: make run ARGS="--params train.rounds=12"

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

export DO_NOT_TRACK := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test lint mutate bench docs viz schedule mlflow
.DELETE_ON_ERROR:

run: $(READY)
	$(BIN)/kedro run $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

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

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The documentation is in build/docs/index.html"

viz: $(READY)
	$(BIN)/kedro viz run --host 127.0.0.1 $(ARGS)

schedule: $(READY)
	PYTHON="$(CURDIR)/$(BIN)/python" deploy/dagster/start.sh

mlflow: $(READY)
	$(BIN)/kedro mlflow ui --host 127.0.0.1 $(ARGS)

# torch first, alone: the pins of everything else then find it in place.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "versatune needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

