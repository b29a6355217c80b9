# Targets for people and CI; `make help` lists them.
# A machine without a GPU may name the CPU index of PyTorch: make setup TORCH_INDEX=<url>

PY ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
RECIPES = $(wildcard recipes/*.yaml)

.DELETE_ON_ERROR:
.PHONY: help setup check test quickstart gate-example recipes clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

# torch goes first and alone: everything after it is held to the same version, so neither a CPU nor a CUDA build is replaced.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PY) -m venv $(VENV)
	$(PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	touch $@

setup: $(VENV)/.installed  ## virtual environment with the tested versions

check: setup  ## format, lint, types, import rules
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

test: setup  ## the whole suite; needs no network and no model
	$(VENV)/bin/python -m pytest

quickstart: setup  ## model, data and the whole pipeline, on two cores
	$(VENV)/bin/ftcli run recipes/quickstart.yaml --run runs/quickstart

gate-example: setup  ## an evaluation with a gate, as CI runs it
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" docs/ci/eval-gate.sh recipes/ci-gate.yaml runs/ci-gate runs/ci-gate-report

recipes: setup  ## check every recipe and print its plan
	@for recipe in $(RECIPES); do echo "== $$recipe"; $(VENV)/bin/ftcli plan $$recipe || exit 1; done

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ftcli tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
