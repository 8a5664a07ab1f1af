# inbound. `make run` and `make test` do everything from a fresh clone; they need python 3.11 or newer and a package index.
PYTHON ?= $(shell packaging/python)
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: run demo test soak check format lock clean

run: $(VENV)/.runtime  ## a receiver on 127.0.0.1:2525 with embedded defaults, and a first message through it
	$(BIN)/inbound serve --with-samples

demo: $(VENV)/.runtime  ## every sample through a receiver by SMTP, and the table of what became of it
	$(BIN)/inbound demo

test: $(VENV)/.dev debian  ## everything, on real parts
	$(BIN)/python -m pytest

soak: $(VENV)/.dev debian  ## half an hour of mixed load, 100,000 connections: nothing is lost and nothing grows
	SOAK_SECONDS=1800 $(BIN)/python -m pytest -s tests/test_soak.py

check: $(VENV)/.dev  ## style, types, import directions, and that the documents are true
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## renew requirements*.txt from pyproject.toml; hashes, no index lines
	packaging/lock

$(VENV)/.runtime: requirements.txt pyproject.toml
	PYTHON=$(PYTHON) packaging/setup $(VENV) requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt pyproject.toml
	PYTHON=$(PYTHON) packaging/setup $(VENV) requirements-dev.txt
	@touch $(VENV)/.runtime $@

.PHONY: debian
debian:
	@packaging/debian

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
