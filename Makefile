# All targets run in .venv and create it first. The machine needs only Python 3.10+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
# Processes that run the tests, each a file of tests at a time; auto: one a core.
JOBS ?= auto

.PHONY: help demo test fuzz kills lint format docs bench clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(READY)  ## the main job on rendered scenes: data, nets, training, evaluation, pictures
	$(BIN)/python examples/demo.py $(ARGS)

test: $(READY)  ## run all tests; ARGS="tests/netgen -k sf5" for some
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

fuzz: $(READY)  ## give spoiled files to every reader; ARGS="--minutes 60" for longer
	$(BIN)/python -m tests.fuzz $(ARGS)

kills: $(READY)  ## kill commands at drawn moments and see what is lost; ARGS="--kills 100"
	$(BIN)/python tests/kills/campaign.py $(ARGS)

lint: $(READY)  ## check style, and that packages import only from those below them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache pyproject.toml

format: $(READY)  ## put style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## make docs/layers.md and the drawing of the house anew
	$(BIN)/python docs/make.py

bench: $(READY)  ## measure speed; ratios side by side in one run
	$(BIN)/python -m bench $(ARGS)

clean:  ## remove what these commands made
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .ruff_cache caffe/proto/*_pb2.py
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml setup.py constraints.txt $(wildcard caffe/proto/*.proto)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
