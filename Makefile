# The developer's commands. `make run` and `make test` set everything up by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
PIP_ARGS ?=
WORKERS ?= 2

.PHONY: help install run test lint format types imports pytest drills protos clean

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 12

install: $(STAMP) ## Make .venv and install the project with its development tools

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "found no python3; install Python 3.11 or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "found $$("$(PYTHON)" --version), expected Python 3.11 or newer; say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

run: install ## Learn to grasp on this machine: make run ARGS="--minutes 30"
	$(BIN)/qtopt run $(ARGS)

test: install lint types imports pytest ## Everything that must pass before a commit

lint: install ## Style and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## Put the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Static types, strict
	$(BIN)/mypy

imports: install ## Who may import whom
	$(BIN)/lint-imports

pytest: install ## Tests alone: first those that live by the clock, alone, then those that compute
	$(BIN)/pytest -q --reruns 1 -m "realtime and not drill" $(ARGS)
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not realtime and not drill" $(ARGS)

drills: install ## Short forms of the drills, and what of the robots takes long: well over half an hour
	$(BIN)/pytest -q -m drill $(ARGS)

protos: install ## Generate qtopt/rpc/gen from protos/
	$(BIN)/python -m qtopt.rpc.generate

clean: ## Remove caches and build products; the environment and outputs/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
