# Every target sets up what it needs first: Python 3.11 or 3.12 with venv is all it starts from.

SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=
QUIET := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1 \
	PREFECT_SERVER_ANALYTICS_ENABLED=false
PYTEST := $(QUIET) $(BIN)/python -m pytest
SPREAD := $(if $(filter-out 0,$(WORKERS)),-n $(WORKERS))

.PHONY: demo test test-slow test-browser check format lock ui base bench clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 12

$(READY): pyproject.toml requirements/constraints.txt requirements/setup.sh
	@requirements/setup.sh

demo: $(READY)  ## run the farm on the built-in world and print the leaderboard
	@$(BIN)/alpacafarm demo $(DEMO_ARGS)

test: $(READY)  ## the tests, on two cores (WORKERS=0 for one, PYTEST_ARGS narrows them)
	@$(PYTEST) $(SPREAD) -m "not slow and not browser" $(or $(PYTEST_ARGS),--cov --cov-report=term)

test-slow: $(READY)  ## the tests that take minutes
	@$(PYTEST) $(SPREAD) -m slow $(PYTEST_ARGS)

test-browser: $(READY)  ## the workplace in a headless chromium, which must be installed
	@$(BIN)/python -c "import playwright" 2>/dev/null || $(BIN)/pip install -q -e ".[browser]"
	@$(PYTEST) -m browser tests/browser $(PYTEST_ARGS)

check: $(READY)  ## format, lint, types, import layers, lock file
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(PYTEST) tests/test_layers.py
	@$(BIN)/python -m alpacafarm_core.lock --check

format: $(READY)  ## format and mend what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(READY)  ## record the stages' digests in stages.lock
	@$(BIN)/python -m alpacafarm_core.lock --write

ui: $(READY)  ## Prefect server, worker and every deployment on this machine
	@$(BIN)/alpacafarm serve --with-server --watch data/incoming/preferences --watch data/incoming/candidates

base: $(READY)  ## retrain the world's base model and its tokenizer
	@$(BIN)/python -m alpacafarm_core.world.base

bench: $(READY)  ## the side-by-side benchmarks that run on this machine
	@$(BIN)/python -m benchmarks

clean:  ## remove the environment and caches; artifacts stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist *.egg-info
