# Two commands for everyone: `make pipeline` and `make test`. A Python 3.11+ and make are all they need.
PYTHON ?= python3
WORKSPACE ?= workspaces/field
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

.PHONY: pipeline test lint types unit field flow up down bench clean help
.DEFAULT_GOAL := help

help:
	@echo 'make pipeline  everything, from the embedded sample to the results table and report (CPU, no server)'
	@echo 'make test      lint, types and tests'
	@echo 'make field     the same chain over real imagery (configs/field.yaml) in $(WORKSPACE)'
	@echo 'make flow      the chain as a Prefect flow'
	@echo 'make up        MLflow, a Prefect server and a worker on this machine, with the deployments (docs/operations.md)'
	@echo 'make down      end what make up started'
	@echo 'make bench     how long the chain, a run with nothing to do and gfm --help take'
	@echo 'make clean     remove what the stages made (the DVC cache and tracking database stay)'

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gfm needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo 'Installing into .venv: 5 to 10 minutes, mostly the download of PyTorch'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/tools: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

pipeline: .venv/installed
	gfm sample
	dvc repro
	gfm results

flow: .venv/installed
	gfm sample
	python flows/pipeline.py

field: .venv/installed
	gfm workspace configs/field.yaml $(WORKSPACE)
	python flows/pipeline.py --workspace $(WORKSPACE)
	cd $(WORKSPACE) && gfm results

up: .venv/installed
	@python flows/services.py up

down: .venv/installed
	@python flows/services.py down

test: lint types unit

lint: .venv/tools
	ruff check .
	ruff format --check .

types: .venv/tools
	mypy

# One thread a worker: the workers already fill the cores.
unit: .venv/tools
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --durations 10

bench: .venv/installed
	python benchmarks/pipeline.py

clean:
	rm -rf data/geopile data/tasks data/splits models reports checkpoints
