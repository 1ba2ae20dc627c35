# `make study` or `make test` alone sets up everything on a machine with Python 3.11 and make.

PYTHON ?= python3
SCALE ?= smoke

BIN := .venv/bin
STAMP := .venv/.installed
# Quiet Jupyter, and its kernel `python3` is the one of .venv, also where the user has another of that name.
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv" JUPYTER_PLATFORM_DIRS=1 \
	JUPYTER_PREFER_ENV_PATH=1 PYDEVD_DISABLE_FILE_VALIDATION=1

# A closed tab's kernel ends within a minute.
CULL := --MappingKernelManager.cull_interval=10 --MappingKernelManager.cull_idle_timeout=30

.DEFAULT_GOAL := help
.PHONY: help venv data study test lint lab demo book clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | while IFS='|' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  SCALE=$(SCALE) (smoke, laptop, gpu or paper) and PYTHON=$(PYTHON) can be set: make study SCALE=laptop PYTHON=python3.12"

study: data ## run every notebook live at SCALE=smoke (or laptop) and list the figures and tables it wrote
	@$(RUN) $(BIN)/dcnas study --scale $(SCALE) --jobs 2

test: data ## ruff, the tests, and every notebook against its stored outputs
	@$(RUN) $(BIN)/ruff check .
	@$(RUN) $(BIN)/python -m pytest tests
	@$(RUN) $(BIN)/python -m pytest -p no:cacheprovider --nbval-lax --nbval-current-env --nbval-cell-timeout=300 notebooks
	@echo "make test: all checks passed"

lab: $(STAMP) ## open the notebooks in JupyterLab (options go in LAB_ARGS)
	@$(RUN) $(BIN)/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/01_introduction.ipynb $(LAB_ARGS)

demo: data ## the demo as a page in the browser (options go in DEMO_ARGS)
	@$(RUN) $(BIN)/python -m voila demo/demo.ipynb $(CULL) $(DEMO_ARGS)

book: $(STAMP) ## the stored notebooks as a site with navigation and search, in out/book
	@rm -rf out/book
	@$(RUN) $(BIN)/python -m sphinx -q -n -W --keep-going -E -c book -d out/doctrees notebooks out/book
	@echo "The book is made: open out/book/index.html in a browser, or serve it: $(BIN)/python -m http.server --directory out/book"

lint: $(STAMP) ## ruff alone, over .py and .ipynb
	@$(RUN) $(BIN)/ruff check .

data: $(STAMP) ## fetch and check the images, once
	@$(RUN) $(BIN)/dcnas data

venv: $(STAMP) ## create .venv and install dcnas into it, with all it needs

clean: ## remove .venv, caches and executed notebooks; data/ and figures/ stay
	rm -rf .venv build dist out .pytest_cache .ruff_cache
	find lib tests notebooks benchmarks \( -name __pycache__ -o -name .ipynb_checkpoints -o -name '*.egg-info' \) \
		-prune -exec rm -rf {} + 2>/dev/null || true

# An environment that is whole and new enough is kept and only brought up to date; any other is made again.
$(STAMP): pyproject.toml
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		command -v "$(PYTHON)" >/dev/null 2>&1 || \
			{ echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
			{ echo "dcnas needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1): name another one, as in make PYTHON=python3.11" >&2; exit 1; }; \
		"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
			{ echo "$(PYTHON) lacks the venv module: install it (on Debian and Ubuntu the package python3-venv) and run make again." >&2; exit 1; }; \
		rm -rf .venv; \
		"$(PYTHON)" -m venv .venv || \
			{ rm -rf .venv; echo "$(PYTHON) could not create .venv; its message is above." >&2; exit 1; }; \
	fi
	@echo "Installing dcnas and what it needs into .venv (the first time this takes some minutes and about 5 GB)"
	@$(RUN) $(BIN)/python -m pip install --disable-pip-version-check -e '.[test,demo,related,book,ray,export]'
	@touch $@
