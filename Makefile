# CreditLab: `make` prints what there is. Everything runs from .venv, made from requirements.lock at first need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: help demo serve test lint bench bench-quick compose-up compose-test
.DEFAULT_GOAL := help

help: ## print this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(READY) ## train a net by DFA beside its backprop twin, through the whole service; writes report.html
	@$(BIN)/python -m creditlab.demo

serve: $(READY) ## run the service on http://127.0.0.1:8000, data in ./.creditlab; Ctrl-C stops it
	@$(BIN)/creditlab up

test: $(READY) ## run all tests
	@$(BIN)/pytest --numprocesses 2 --dist worksteal

lint: $(READY) ## check style, types and import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## a training step of each method against plain PyTorch, in ratios; a quarter of an hour
	@$(BIN)/python -m benchmarks.steps

bench-quick: $(READY) ## run every benchmark in its quick form
	@$(BIN)/python -m benchmarks.steps --quick
	@set -e; for benchmark in $(wildcard benchmarks/*.py); do echo "== $$benchmark"; $(BIN)/python $$benchmark --quick; done

compose-up: ## run the service in containers on http://127.0.0.1:8000 (Docker Compose); says how to get a key
	@docker/up.sh

compose-test: $(READY) ## try the containers: build, run, kill, scale, upgrade, restore (needs a Docker engine; minutes)
	@$(BIN)/pytest tests/compose/scenario.py --verbose --exitfirst --timeout 1800 --capture no

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CreditLab needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
