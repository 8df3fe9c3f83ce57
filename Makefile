# SPDX-License-Identifier: Apache-2.0
# Nothing but make and Python is needed: the first target that wants it creates .venv, and stamps in it remember what is installed.

STACK ?=# empty: the lab, or what the context in ZTC_ARGS turns out to be
STACKS ?=# of `make matrix`, with spaces between them
ZTC_ARGS ?=
PYTEST_ARGS ?=
PYTHON ?=# empty: the newest of python3.14 ... python3 that is 3.11 or newer

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help conformance matrix test test-cluster lint bench bench-cluster lock dev clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

conformance: .venv/installed-run ## Prove the requirements on STACK (the lab if none is named); ZTC_ARGS goes to `ztconform run`
	@$(if $(filter-out lab,$(STACK))$(findstring --context,$(ZTC_ARGS)),$(MAKE) --silent --no-print-directory .venv/installed-kube)
	@.venv/bin/ztconform run $(if $(STACK),--stack $(STACK)) $(ZTC_ARGS)

matrix: .venv/installed-run ## Prove the requirements on each of STACKS, a session each; goes on after one that could not be provisioned
	@$(if $(filter-out lab,$(STACKS)),$(MAKE) --silent --no-print-directory .venv/installed-kube)
	@.venv/bin/ztconform matrix $(STACKS) $(if $(ZTC_ARGS),-- $(ZTC_ARGS))

test: .venv/installed-dev ## Run the project's own tests; PYTEST_ARGS goes to pytest
	@$(PY) -m pytest --timeout=300 -n 2 $(PYTEST_ARGS)

test-cluster: .venv/installed-dev ## Run the tests that need real clusters; ZTC_TEST_* variables say what images and charts there are
	@$(PY) -m pytest --timeout=900 tests/kube $(PYTEST_ARGS)

lint: .venv/installed-dev ## Run ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

bench: .venv/installed-dev ## Measure the lab and print a table
	@$(PY) -m bench

bench-cluster: .venv/installed-dev ## Measure proofs on a kind cluster with Cilium; takes the variables of test-cluster
	@PYTHONPATH=tests $(PY) -m bench cluster

lock: ## Pin the development dependencies again, with hashes; needs uv
	@uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --extra all --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --quiet --upgrade -o requirements.lock

dev: .venv/installed-dev ## Install the development tools into .venv, and nothing else

clean: ## Remove .venv, caches and builds
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed-run: pyproject.toml | $(PY)
	@echo "Installing ztconform into .venv ..."
	@$(PIP) install --editable '.[xdist]'
	@touch $@

.venv/installed-kube: pyproject.toml | .venv/installed-run
	@echo "Installing what Kubernetes needs into .venv ..."
	@$(PIP) install --editable '.[all]'
	@touch $@

# The lock is complete, so nothing is left to resolve: an older pip (23.2) would look for the newest `coverage[toml]`, which has no hash here.
.venv/installed-dev: pyproject.toml requirements.lock | $(PY)
	@echo "Installing the development tools into .venv ..."
	@$(PIP) install --require-hashes --no-deps --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# The test of a candidate runs it: a version manager's shim may be on the PATH for a Python that is not installed.
$(PY):
	@for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found="$$python" && break; \
	done; \
	if [ -z "$$found" ]; then \
		echo "ztconform needs Python 3.11 or newer$(if $(PYTHON), and $(PYTHON) is not): install the package python3.11 (or newer) and type make again" >&2; exit 1; \
	elif ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$found has no venv module: type  apt-get install python$$version-venv  (as root) and then make again" >&2; exit 1; \
	fi; \
	"$$found" -m venv --clear .venv || { rm -rf .venv; exit 1; }
