# The only list of commands. `make demo` and `make test` need Python 3.11 to 3.13 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
SUITES := tests/unit tests/architecture tests/integration tests/faults tests/gpu
SEED ?= 0
export PYTHONUNBUFFERED := 1
# Packages are installed without bytecode. With this variable set, every process would compile them again, for 4 to 6 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo up down env pin test faults contract bench check audit lock compose-check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

install: ## Create .venv and install what Tidal needs at run time
	@$(PYTHON) scripts/bootstrap.py

demo: install ## Train a model and a controller, generate three stories (DATA=path: your text, KEEP=1: keep running)
	@$(BIN)/tidal demo $(if $(DATA),--data '$(DATA)') $(if $(KEEP),--keep)

up: install ## Start the local stack in the foreground; Ctrl-C stops all of it
	@$(BIN)/tidal up

down: install ## Stop a local stack
	@$(BIN)/tidal down

env: install ## Write .env with random secrets for docker compose
	@$(BIN)/tidal env

pin: ## Write the digests of docker compose's base images to .env
	@$(PYTHON) scripts/pin_images.py

test: ## Run unit, architecture, integration, browser tests and the core faults (TESTS=path: only these)
	@$(PYTHON) scripts/bootstrap.py test
	@$(PYTHON) scripts/chromium.py
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(or $(TESTS),-m "core_fault or not fault" $(SUITES))
	@$(if $(TESTS),,$(BIN)/python -m pytest tests/browser)

faults: ## Inject 31 faults into real processes (SEED=n; FULL=1: real timers and the soak, over an hour)
	@$(PYTHON) scripts/bootstrap.py test
	@$(BIN)/python -m pytest -n $(if $(FULL),6,3) --dist loadfile --timeout $(if $(FULL),1800 --full,300) \
		--fault-seed $(SEED) tests/faults
	@$(if $(FULL),$(BIN)/python -m tests.faults.soak --jobs 200 --minutes 30 --seed $(SEED))

contract: ## Send generated requests that follow the OpenAPI document to real servers (EXAMPLES=n per operation)
	@$(PYTHON) scripts/bootstrap.py test
	@$(BIN)/python -m tests.integration.api.contract_run --examples $(or $(EXAMPLES),10)

bench: ## Run every benchmark and append the results to docs/benchmarks.md (QUICK=1: a minute)
	@$(PYTHON) scripts/bootstrap.py test
	@$(BIN)/python -m bench $(if $(QUICK),--quick)

check: ## Check lint, format, types, import rules, names, words, and references of the documentation
	@$(PYTHON) scripts/bootstrap.py test dashboard
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/check_dashboard.py
	@$(BIN)/python -m scripts.check_docs
	@$(BIN)/python -m scripts.check_words
	@$(BIN)/python -m pytest tests/architecture

audit: ## Report known vulnerabilities, SBOM and licences of run-time packages (build/supply-chain)
	@$(PYTHON) scripts/bootstrap.py audit
	@$(BIN)/python scripts/supply_chain.py

lock: ## Write requirements/*.txt, the hashed packages of the images
	@$(PYTHON) scripts/bootstrap.py audit
	@$(BIN)/python scripts/lock.py

compose-check: install ## Check that running containers are hardened and a job survives each restart
	@$(BIN)/python scripts/compose_check.py

clean: ## Remove the environment and caches (job data in .tidal/ stays)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
