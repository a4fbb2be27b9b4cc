# All targets of the project. Needs Python 3.11 or newer and make; `make` alone lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
STORE  ?= models
PORT   ?= 8000
UV     ?= uv

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTABLE  := $(VENV)/.testable

.DEFAULT_GOAL := help
.PHONY: help install examples run check test clients docs chart lint audit pythons wheels bundle stress bench bench-training bench-serving bench-instructions bench-quality lock clean

help: ## list the targets
	@awk -F ': .*## ' '/^[a-z-]+:.* ## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  settings: PORT=$(PORT) STORE=$(STORE) VENV=$(VENV) PYTHON=$(PYTHON)"

# Every package, the build backend included, is installed from a lock file and checked against its hash.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
$(INSTALLED): requirements/base.lock requirements/build.lock pyproject.toml
	@echo "Installing the locked packages into $(VENV) (half a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; found " + sys.version)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --requirement requirements/base.lock --requirement requirements/build.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# Packages for tests, linters and benchmarks.
$(TESTABLE): $(INSTALLED) requirements/dev.lock
	@echo "Installing the packages for tests"
	@$(PIP) --require-hashes --requirement requirements/dev.lock
	@touch $@

install: $(INSTALLED) ## install the commands forward-pass, train, models and serve into .venv/bin

examples: $(INSTALLED) ## train and publish the examples that are missing in the store
	@PATH="$(CURDIR)/$(BIN):$$PATH" MODEL_STORE="$(STORE)" SERVE_PORT="$(PORT)" sh examples/publish.sh

run: examples ## train the examples once, then serve them
	@echo
	@echo "Pages       http://127.0.0.1:$(PORT)/"
	@echo "Try         curl http://127.0.0.1:$(PORT)/models/xor/predict --data '{\"instances\": [[0, 1], [1, 1]]}'"
	@echo "Stop        Ctrl-C"
	@echo
	@exec $(BIN)/serve --store "$(STORE)" --port $(PORT)

check: $(TESTABLE) ## run the fast tests in parallel
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not containers and not browser"

# The clients of Triton and KServe, and schemathesis; MLServer needs an environment of its own, its dependencies conflict.
CLIENTS := .venv-clients .venv-mlserver
CHART := .venv-chart
$(CLIENTS:=/.installed) $(CHART)/.installed: .venv-%/.installed: requirements/%.lock
	@echo "Installing $< into $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# The documentation site has an environment of its own. `make test` builds the site too and fails on a warning.
SITE := .venv-docs
AUDIT := .venv-audit
$(SITE)/.installed: requirements/docs.lock
	@echo "Installing the packages for the documentation site"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

docs: $(SITE)/.installed ## build the documentation site in site/
	@PATH="$(CURDIR)/$(SITE)/bin:$$PATH" NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet --strict
	@echo "Open site/index.html, or serve it: $(PYTHON) -m http.server --directory site"

test: $(TESTABLE) $(CLIENTS:=/.installed) $(CHART)/.installed $(SITE)/.installed $(AUDIT)/.installed pythons ## run all tests; those without their tools (Docker, Chromium) are skipped with a reason
	@$(BIN)/python -m pytest --ignore tests/clients
	@$(MAKE) --no-print-directory clients chart

# The wheel is tested on each of these. Where one is missing and cannot be installed, its tests are skipped with a reason.
pythons: ## install the Python versions that are missing into .pythons, for the tests of the wheel
	@for version in 3.11 3.12 3.13 3.14; do sh scripts/find_python.sh --fetch $$version > /dev/null || true; done

# Triton's client for gRPC cannot be imported beside KServe's: their messages have the same names.
MLSERVER := tests/clients/test_mlserver.py
TRITON_GRPC := tests/clients/test_triton_grpc.py
clients: $(CLIENTS:=/.installed) ## run the tests with the clients of other projects
	@.venv-clients/bin/python -m pytest tests/clients --ignore $(MLSERVER) --ignore $(TRITON_GRPC)
	@.venv-clients/bin/python -m pytest $(TRITON_GRPC)
	@.venv-mlserver/bin/python -m pytest $(MLSERVER) || test $$? = 5  # 5: all skipped, from Python 3.13 on

# cloudcoil's plugin for pytest needs packages that cloudcoil does not require.
chart: $(CHART)/.installed ## render the Helm chart and validate it against the schemas of Kubernetes, KEDA and the Prometheus operator
	@$(CHART)/bin/python -m pytest --noconftest -p no:cloudcoil tests/deploy

lint: $(TESTABLE) ## run ruff, and mypy --strict on the three packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The SBOM describes an environment with the packages of the images, checked against the same hashes.
$(AUDIT)/.installed: requirements/audit.lock
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

audit: $(AUDIT)/.installed ## run hadolint on the Dockerfile and write dist/sbom.json (CycloneDX): the shipped packages
	@$(AUDIT)/bin/hadolint Dockerfile
	@$(PYTHON) -m venv --clear --without-pip dist/shipped
	@$(AUDIT)/bin/python -m pip --python dist/shipped/bin/python install -qq --disable-pip-version-check \
		--require-hashes --requirement requirements/base.lock
	@$(AUDIT)/bin/cyclonedx-py environment dist/shipped --pyproject pyproject.toml --output-reproducible \
		--output-file dist/sbom.json
	@rm -r dist/shipped

wheels: $(INSTALLED) ## build wheel and sdist of the project and of its Python client in dist/
	@rm -f dist/forward_pass*
	@$(BIN)/python -m hatchling build --directory dist
	@cd clients/python && $(abspath $(BIN))/python -m hatchling build --directory $(CURDIR)/dist

bundle: $(INSTALLED) $(AUDIT)/.installed ## write dist/forward-pass-*.tar.gz: all that a machine without a network needs
	@$(BIN)/python -m scripts.bundle --sbom-tool $(AUDIT)/bin/cyclonedx-py $(ARGS)

stress: $(TESTABLE) ## stress tests: overload, signals, store faults, bad inputs, for ten minutes (ARGS="--short soak")
	@$(BIN)/python -m tests.stress $(ARGS)

bench: $(TESTABLE) ## run the benchmarks of training, loading and memory
	@for name in training loading sharing; do $(BIN)/python -m benchmarks.$$name || exit; done

# pip installs PyTorch's CPU build if the machine's index offers one.
PEERS := .venv-peers
$(PEERS)/.installed: benchmarks/peers/requirements.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

bench-training: $(TESTABLE) $(PEERS)/.installed ## compare training with PyTorch, scikit-learn and JAX (installed into .venv-peers)
	@$(BIN)/python -m benchmarks.training_peers $(PEERS)/bin/python
	@$(PEERS)/bin/python -m benchmarks.optimizers

# The peers in serving, each in an environment of its own. If one cannot be installed, the table says why.
SERVING := naive fastapi starlette litserve bentoml mlserver onnx
SERVING_PEERS := $(SERVING:%=.venv-peer-%)
$(SERVING_PEERS:=/.installed): .venv-peer-%/.installed: benchmarks/peers/serving/requirements/%.txt
	@echo "Installing $* into $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@rm -f $@; $(@D)/bin/python -m pip install -qq --disable-pip-version-check -r $< 2> $(@D)/install.log \
		&& touch $@ || tail -n 1 $(@D)/install.log

bench-serving: $(TESTABLE) $(SERVING_PEERS:=/.installed) ## compare serving with FastAPI, Starlette, LitServe, BentoML, MLServer (ARGS="--only ours,naive")
	@command -v wrk > /dev/null || apt-get install -y -qq wrk > /dev/null || true  # the benchmark reports it if wrk is missing
	@$(BIN)/python -m benchmarks.serving $(ARGS)

INSTRUCTION_PEERS := naive fastapi starlette onnx
bench-instructions: $(TESTABLE) $(INSTRUCTION_PEERS:%=.venv-peer-%/.installed) ## count the instructions of a request, ours and peers' (needs valgrind; ARGS="--only ours")
	@command -v valgrind > /dev/null || apt-get install -y -qq valgrind > /dev/null || true
	@$(BIN)/python -m benchmarks.instructions $(ARGS)

# The tables of the quality benchmark, and its peers. Only pandas is needed of what the tables' packages depend on.
QUALITY_PEERS := .venv-peer-tables .venv-peer-sklearn .venv-peer-lightgbm .venv-peer-catboost .venv-peer-realmlp
$(QUALITY_PEERS:=/.installed): .venv-peer-%/.installed: benchmarks/peers/quality/requirements/%.txt
	@echo "Installing $* into $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@rm -f $@; $(@D)/bin/python -m pip install -qq --disable-pip-version-check $(if $(filter tables,$*),--no-deps) \
		-r $< 2> $(@D)/install.log && touch $@ || tail -n 1 $(@D)/install.log

bench-quality: $(TESTABLE) $(QUALITY_PEERS:=/.installed) ## compare predictions on 41 public tables with scikit-learn, LightGBM, CatBoost, RealMLP (ARGS="--seeds 1")
	@$(BIN)/python -m benchmarks.quality $(ARGS)

UPGRADE ?= --upgrade
# No index URLs in a lock: it says which packages to install, and the machine's settings say from where.
COMPILE := $(UV) pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
WHOLE := pyproject.toml --extra buckets --extra signing
AGREEING := --constraint requirements/base.lock --output-file
lock: ## lock the newest versions of all dependencies (needs uv; UPGRADE= keeps locked versions)
	$(COMPILE) $(WHOLE) --output-file requirements/base.lock
	$(COMPILE) --group build $(AGREEING) requirements/build.lock
	$(COMPILE) $(WHOLE) --extra otel --extra sweep --extra dask --extra mpi --extra onnx --extra javascript --extra sklearn \
		--extra safetensors --extra keras --extra images --extra grpc --extra test --group lint --group build \
		--group servers --group engines $(AGREEING) requirements/dev.lock
	$(COMPILE) --group audit --output-file requirements/audit.lock
	$(COMPILE) --group docs --output-file requirements/docs.lock
	$(COMPILE) --group chart --output-file requirements/chart.lock
	$(COMPILE) $(WHOLE) --extra test --extra clients --extra grpc $(AGREEING) requirements/clients.lock
	$(COMPILE) $(WHOLE) --extra test --extra mlserver $(AGREEING) requirements/mlserver.lock

clean: ## remove all that make installed and built; trained models stay
	rm -rf $(VENV) .pythons $(PEERS) $(SERVING_PEERS) $(QUALITY_PEERS) $(CLIENTS) $(CHART) $(AUDIT) $(SITE) build dist site .coverage
	find . -type d \( -name __pycache__ -o -name "*.egg-info" -o -name ".*_cache" -o -name .hypothesis -o -name .schemathesis \) \
		-prune -exec rm -rf {} +
