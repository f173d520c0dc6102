# `make help` lists the targets. Both environments are made from hashed locks by tools/environment.sh.
.DEFAULT_GOAL := help
SHELL := /bin/bash
SITE := .venv-site/bin
FULL := .venv/bin
PORT ?= 8000

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

.venv-site/.ready: requirements-site.txt pyproject.toml tools/environment.sh
	@tools/environment.sh site

.venv/.ready: requirements.txt requirements-torch.txt pyproject.toml tools/environment.sh tools/vllm-alias/pyproject.toml
	@tools/environment.sh full

.PHONY: book
book: .venv-site/.ready ## Build the site to _build/html, warnings are errors
	@$(SITE)/jupyter-book build . --all -W -n --keep-going --quiet
	@echo "Built _build/html. Read it with: make serve"

.PHONY: serve
serve: ## Serve the built site on 127.0.0.1 (PORT=8000)
	@test -x $(SITE)/python || { echo "Nothing is built yet: run make book"; exit 2; }
	@$(SITE)/python tools/serve.py --port $(PORT)

.PHONY: test
test: ## Run every check (a full environment, an engine, a browser)
	@tools/system.sh before
	@$(MAKE) --no-print-directory .venv/.ready
	@tools/system.sh
	@$(MAKE) --no-print-directory book
	@$(MAKE) --no-print-directory lint
	@tools/lanes.sh

.PHONY: lint
lint: .venv/.ready ## ruff and mypy
	@$(FULL)/ruff format --check --quiet . && $(FULL)/ruff check --quiet . && $(FULL)/mypy --no-error-summary

.PHONY: notebooks
notebooks: .venv/.ready ## Execute the chapters whose twin is missing or stale
	@$(FULL)/llminfra notebooks

.PHONY: bench
bench: .venv/.ready ## Benchmarks: ratios within one run
	@for script in benchmarks/*.py; do echo "== $$script"; $(FULL)/python $$script || exit 1; done

.PHONY: lock
lock: ## Write requirements*.txt from pyproject.toml (needs the internet)
	@tools/lock.sh

.PHONY: clean
clean: ## Remove what was built, not the environments
	rm -rf _build
