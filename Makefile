# Everything runs in a virtual environment of its own; the first run creates it, later runs reuse it.
# Overridable: PYTHON (the interpreter for the environment), VENV, WORKERS (pytest-xdist), PYTEST_ARGS.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
PYTEST_ARGS ?=

BIN := $(VENV)/bin
DEMO_DIR := out/demo
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format schema dist check-minimal check-gpu-extra test-no-torch clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The stamps make a change of pyproject.toml or constraints.txt install again, and nothing else.
# pip moves first: dependency groups need pip 25.1.
$(VENV)/.stamp-pip: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("nvaudit needs Python 3.11 or newer: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-pip pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-pip pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,report,images,dask]' --group dev
	@touch $@

demo: $(VENV)/.stamp-demo ## audit the example network on the fefet1 device
	@mkdir -p $(DEMO_DIR)
	$(BIN)/nvaudit audit examples/digits_cnn.onnx --device fefet1 -o $(DEMO_DIR)/report.json
	@echo "The report is in $(DEMO_DIR)/report.json"

test: lint ## lint, type-check, and run the default tests (less than 10 minutes)
	$(PYTEST) -m "not slow" -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-slow: $(VENV)/.stamp-dev ## run the slow tests (longer)
	$(PYTEST) -m slow -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.stamp-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp-dev ## reformat and apply ruff's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.stamp-dev ## write the JSON schemas of reports, devices, technologies, manifests and nvaudit.toml anew
	$(BIN)/python -m nvaudit.report nvaudit/report/schemas
	$(BIN)/python -m nvaudit.cli.config > nvaudit/cli/nvaudit-toml.schema.json
	$(BIN)/python -m nvaudit.device > devices/schema.json
	$(BIN)/python -m nvaudit.technology > technology/schema.json
	$(BIN)/python -m nvaudit.mapping > nvaudit/mapping/manifest.schema.json

dist: $(VENV)/.stamp-dev ## build the source archive, and from it the wheel, into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

check-minimal: dist ## audit with the wheel alone, outside the repository, without torch
	PYTHON="$(PYTHON)" .ci/check-minimal dist/*.whl

check-gpu-extra: dist ## with the gpu extra on a machine without a GPU, --provider cuda is refused
	PYTHON="$(PYTHON)" .ci/check-gpu-extra dist/*.whl

test-no-torch: check-minimal ## the same as check-minimal

clean: ## remove the environment and everything generated
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
