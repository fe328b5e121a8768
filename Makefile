# make run   executes the whole workbook headless          make lab    opens it in JupyterLab
# make test  passes every test                             make lock   resolves requirements.lock anew
# PYTHON=... names the interpreter; otherwise the first Python 3.12 or 3.11 found is used.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
SUPPORTED := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
FOUND = $(shell for python in $(if $(PYTHON),$(PYTHON),python3.12 python3.11 python3 python); do \
          "$$python" -c '$(SUPPORTED)' 2>/dev/null && command -v "$$python" && break; done)
OFFLINE := set -a; . support/deploy/offline.env; set +a;

.PHONY: help env run test lint lab lock notebooks clean
help:
	@sed -n 's/^# make /make /p; s/^# PYTHON/PYTHON/p' Makefile

env: $(VENV)/.complete
$(VENV)/.complete: requirements.lock pyproject.toml
	@test -n "$(FOUND)" || { echo "error: this workbook needs Python 3.11 or 3.12, and $(if $(PYTHON),'$(PYTHON)' is not one,none was found). Install one and name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "Creating $(VENV) with $(FOUND) ..."
	@rm -rf $(VENV)
	@"$(FOUND)" -m venv $(VENV) || { echo "error: '$(FOUND) -m venv' failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@cp support/workbook/jupyterlab_overrides.json $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $@

run: env
	@$(OFFLINE) $(BIN)/python -m workbook run

test: lint
	@$(OFFLINE) $(BIN)/pytest

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lab: env
	@$(OFFLINE) $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_check_environment.ipynb \
	  --ServerApp.ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.extension_manager=readonly $(LAB_ARGS)

# Execute the notebooks and store their outputs, normalised, in notebooks/.
notebooks: run
	@$(BIN)/python -m workbook save

# uv lives in an environment of its own: it must work when the lock does not.
lock:
	@test -n "$(FOUND)" || { echo "error: needs Python 3.11 or 3.12" >&2; exit 1; }
	@test -x .venv-lock/bin/uv || { "$(FOUND)" -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv==$(UV_VERSION); }
	@.venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --extra workbook --extra dev $(LOCK_ARGS) pyproject.toml --output-file requirements.lock
	@echo "requirements.lock written"

clean:
	rm -rf build $(VENV) .venv-lock
