# SPDX-License-Identifier: Apache-2.0
# Everything a developer or a newcomer types. `make help` lists it.
# Needs python3.11 or python3.12 with its venv module, git and make; nothing else from the system.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
OUT ?= out
VIDEO ?=
EXIT ?=
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?=

BIN := $(VENV)/bin
TORCH_PIN := $(shell sed -n 's/^\(torch==.*\)/\1/p' requirements.lock)
# The stamp carries the digest of what decides the installation, so that a second run does nothing.
INSTALL_HASH := $(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(INSTALL_HASH)
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip

.DEFAULT_GOAL := help
.PHONY: help install demo test test-gpu bench lint format proto docs serve clean-venv

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## Install everything into .venv from the exact lock (PYTHON=python3.12 chooses another Python)

$(STAMP):
	@test -n "$(PYTHON)" || { echo "No python3 was found. Install Python 3.11 or 3.12, or say PYTHON=/path/to/python3.11."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); StyleAvatar needs Python 3.11 or 3.12 (MediaPipe has wheels for no newer one). Say PYTHON=python3.11."; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) lacks its venv module. On Debian or Ubuntu it is the package python3-venv (python3.12-venv and so on)."; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing what requirements.lock pins into $(VENV); this takes some minutes the first time."
	$(PIP) install --no-deps -r requirements.lock
	@# The lock holds what runs everywhere; a CUDA build of torch brings its own libraries on top.
	$(PIP) install --quiet -c requirements.lock "$(TORCH_PIN)"
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@
	@echo "Installed into $(VENV). Try: make demo"

demo: install ## Video in, live avatar out: VIDEO=file.mp4 CONSENT="..." (default: sample clip) OUT=folder EXIT=1 (stop when done)
	$(BIN)/styleavatar demo $(if $(VIDEO),"$(VIDEO)") $(if $(CONSENT),--consent "$(CONSENT)") --out "$(OUT)" $(if $(EXIT),--exit) $(DEMO_OPTIONS)

serve: install ## Start all services on this machine (Ctrl-C stops them)
	$(BIN)/styleavatar serve

test: install ## Unit, integration and end-to-end tests, as CI runs them
	$(BIN)/python -m pytest tests --numprocesses logical --maxprocesses 4 --dist loadgroup $(PYTEST_OPTIONS)

test-gpu: install ## Tests that need a CUDA device; with TensorRT where it is installed
	$(BIN)/python -m pytest tests/gpu -m gpu -W default $(PYTEST_OPTIONS)

lint: install ## ruff, import contracts, mypy, Dockerfiles, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/gpu/compose.yml

format: install ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Run every benchmark, reports under OUT/bench
	$(BIN)/styleavatar bench --out "$(OUT)/bench"

proto: install ## Regenerate proto/gen/python from proto/styleavatar/v1
	$(BIN)/python proto/generate.py

docs: install ## Renew .env.example and the settings table of docs/deployment.md
	$(BIN)/python -m tools.settings_reference

clean-venv: ## Remove the installation
	rm -rf $(VENV)
