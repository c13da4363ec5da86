# The one vocabulary of this project. CI and hooks only call it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

# Two test processes, each with whole files, the long ones first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
TESTS := tests/integration tests/contract tests/unit

.PHONY: help setup demo up down test test-quick test-all lint bench chaos clean

help:           ## Show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed  ## Make the virtual environment with the pinned dependencies

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies into $(VENV) (about 7 GB, some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster,dev]'
	@touch $@

demo: setup     ## From data to champion models, of all families: data, training, evaluation, registration
	@$(BIN)/python -m pipelines train-and-promote digits digit_scenes digits_gan paint

up: setup       ## Start MLflow, Prefect with a worker, and Ray on this machine, behind a password
	@$(BIN)/assay up

down: setup     ## End them
	@$(BIN)/assay down

test-quick: setup  ## Unit and contract tests: the loop of a developer
	$(PYTEST) -m "not thorough" tests/contract tests/unit

test: setup lint  ## Lint, every unit and contract test, and one real run of every capability
	$(PYTEST) -m "not thorough" $(TESTS)

test-all: test  ## The same, and then the rest: clusters of nodes, kills, long schedules
	$(PYTEST) -m thorough $(TESTS)

lint: setup     ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup    ## Side-by-side measurements, one JSON line a figure
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.flows
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.services

chaos: setup    ## About an hour of kills, full disks and cut servers, one JSON line a figure
	$(BIN)/python -m benchmarks.chaos

clean:          ## Remove local state: runs, models, results, packed data (not the virtual environment)
	rm -rf .assay data results
