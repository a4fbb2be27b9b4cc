# Everything that can be made, on a machine with Python 3.11 or newer and make. `make` alone lists it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
STORE  ?= models
PORT   ?= 8000
UV     ?= uv

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTABLE  := $(VENV)/.testable

.DEFAULT_GOAL := help
.PHONY: help install examples run check test clients docs lint audit stress bench bench-training bench-serving lock clean

help: ## this list
	@awk -F ': .*## ' '/^[a-z-]+:.* ## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  settings: PORT=$(PORT) STORE=$(STORE) VENV=$(VENV) PYTHON=$(PYTHON)"

# Every package, the build backend included, is checked against the hashes of a lock.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
$(INSTALLED): requirements/base.lock requirements/build.lock pyproject.toml
	@echo "Installing the locked packages into $(VENV) (half a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; found " + sys.version)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --requirement requirements/base.lock --requirement requirements/build.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# What only tests, linters and benchmarks need.
$(TESTABLE): $(INSTALLED) requirements/dev.lock
	@echo "Installing what the tests need"
	@$(PIP) --require-hashes --requirement requirements/dev.lock
	@touch $@

install: $(INSTALLED) ## the commands train, models and serve, in .venv/bin

examples: $(INSTALLED) ## train and publish the examples that are not yet in the store
	@PATH="$(CURDIR)/$(BIN):$$PATH" MODEL_STORE="$(STORE)" sh examples/publish.sh

run: examples ## train the examples once, then serve them
	@echo
	@echo "Reference   http://127.0.0.1:$(PORT)/docs"
	@echo "Try         curl http://127.0.0.1:$(PORT)/models/xor/predict --data '{\"instances\": [[0, 1], [1, 1]]}'"
	@echo "Stop        Ctrl-C"
	@echo
	@exec $(BIN)/serve --store "$(STORE)" --port $(PORT)

check: $(TESTABLE) ## the fast tests, in parallel
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not containers and not browser"

# Triton's client, KServe's and schemathesis, beside all that the service needs; and MLServer, which does not go with them.
CLIENTS := .venv-clients .venv-mlserver
$(CLIENTS:=/.installed): .venv-%/.installed: requirements/%.lock
	@echo "Installing what other projects publish for clients into $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# The site is built in an environment of its own; make test builds it too, and fails on a warning.
SITE := .venv-docs
$(SITE)/.installed: requirements/docs.lock
	@echo "Installing what the documentation site needs"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

docs: $(SITE)/.installed ## the documentation as a site, in site/
	@PATH="$(CURDIR)/$(SITE)/bin:$$PATH" NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet --strict
	@echo "Open site/index.html, or serve it: $(PYTHON) -m http.server --directory site"

test: $(TESTABLE) $(CLIENTS:=/.installed) $(SITE)/.installed ## all tests; those of images and pages are skipped, with the reason, where they cannot run
	@$(BIN)/python -m pytest --ignore tests/clients
	@$(MAKE) --no-print-directory clients

MLSERVER := tests/clients/test_mlserver.py
clients: $(CLIENTS:=/.installed) ## the service as the clients of other projects meet it
	@.venv-clients/bin/python -m pytest tests/clients --ignore $(MLSERVER)
	@.venv-mlserver/bin/python -m pytest $(MLSERVER) || test $$? = 5  # nothing but skipped: from Python 3.13 on

lint: $(TESTABLE) ## ruff, and mypy --strict on the three packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The bill is made of an environment that holds what the images hold, checked against the same hashes.
AUDIT := .venv-audit
$(AUDIT)/.installed: requirements/audit.lock
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

audit: $(AUDIT)/.installed ## hadolint on the Dockerfile, and dist/sbom.json: what is shipped, in CycloneDX's JSON
	@$(AUDIT)/bin/hadolint Dockerfile
	@$(PYTHON) -m venv --clear --without-pip dist/shipped
	@$(AUDIT)/bin/python -m pip --python dist/shipped/bin/python install -qq --disable-pip-version-check \
		--require-hashes --requirement requirements/base.lock
	@$(AUDIT)/bin/cyclonedx-py environment dist/shipped --pyproject pyproject.toml --output-reproducible \
		--output-file dist/sbom.json
	@rm -r dist/shipped

stress: $(TESTABLE) ## stress tests: overload, signals, store faults, bad inputs, for ten minutes (ARGS="--short soak")
	@$(BIN)/python -m tests.stress $(ARGS)

bench: $(TESTABLE) ## the benchmarks, side by side with their peers
	@for name in training loading sharing; do $(BIN)/python -m benchmarks.$$name || exit; done

# pip install takes PyTorch's CPU build where the machine offers one.
PEERS := .venv-peers
$(PEERS)/.installed: benchmarks/peers/requirements.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

bench-training: $(TESTABLE) $(PEERS)/.installed ## training beside PyTorch, scikit-learn and JAX (installs them into .venv-peers)
	@$(BIN)/python -m benchmarks.training_peers $(PEERS)/bin/python
	@$(PEERS)/bin/python -m benchmarks.optimizers

# The peers in serving, each in an environment of its own. One that cannot be installed is named in the table, with the reason.
SERVING := naive fastapi starlette litserve bentoml mlserver onnx
SERVING_PEERS := $(SERVING:%=.venv-peer-%)
$(SERVING_PEERS:=/.installed): .venv-peer-%/.installed: benchmarks/peers/serving/requirements/%.txt
	@echo "Installing $* into $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@rm -f $@; $(@D)/bin/python -m pip install -qq --disable-pip-version-check -r $< 2> $(@D)/install.log \
		&& touch $@ || tail -n 1 $(@D)/install.log

bench-serving: $(TESTABLE) $(SERVING_PEERS:=/.installed) ## serving beside Flask done naively, FastAPI, Starlette, LitServe, BentoML, MLServer (ARGS="--only ours,naive")
	@command -v wrk > /dev/null || apt-get install -y -qq wrk > /dev/null || true  # the tool says so where it cannot be had
	@$(BIN)/python -m benchmarks.serving $(ARGS)

UPGRADE ?= --upgrade
# Without index addresses: a lock says what to install, the machine that installs says from where.
COMPILE := $(UV) pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
WHOLE := pyproject.toml --extra buckets --extra signing
AGREEING := --constraint requirements/base.lock --output-file
lock: ## resolve the dependencies anew, all at their newest versions (needs uv; UPGRADE= keeps the locked versions)
	$(COMPILE) $(WHOLE) --output-file requirements/base.lock
	$(COMPILE) --group build $(AGREEING) requirements/build.lock
	$(COMPILE) $(WHOLE) --extra otel --extra test --group lint --group build --group servers $(AGREEING) requirements/dev.lock
	$(COMPILE) --group audit --output-file requirements/audit.lock
	$(COMPILE) --group docs --output-file requirements/docs.lock
	$(COMPILE) $(WHOLE) --extra test --extra clients $(AGREEING) requirements/clients.lock
	$(COMPILE) $(WHOLE) --extra test --extra mlserver $(AGREEING) requirements/mlserver.lock

clean: ## remove what was made, except trained models
	rm -rf $(VENV) $(PEERS) $(SERVING_PEERS) $(CLIENTS) $(AUDIT) $(SITE) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
