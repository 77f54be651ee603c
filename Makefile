# On a machine with Python >= 3.11 and pip, `make demo` and `make test` set up what they need.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes at a time, in tests and in the demo.
JOBS ?= 2
# The first interpreter that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# One process for each core, one thread in each: small tensors gain nothing from more.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope
# Benchmarks of quality take much longer than those of speed and memory; run them one by one.
LONG_BENCHMARKS := %/common.py %/aa.py %/finetune.py %/quality.py %/race_regret.py
METHODS := sgd,adamw,lion,adahessian,mezo,rank_sgd

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP)  ## Set up .venv with everything, at the versions of constraints.txt

$(STAMP): pyproject.toml $(wildcard distributions/*/pyproject.toml) constraints.txt
	@test -n "$(PYTHON)" || { echo "AnyOrder needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; PyTorch is large) ..."
	@$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --group dev \
		--editable ".[all]" --editable distributions/studies --editable "distributions/papers[site]"
	@touch $@

.PHONY: demo
demo: $(STAMP)  ## Compare six methods on two problems, into ./demo (under six minutes)
	$(BIN)/anyorder compare digits --methods $(METHODS) --budget 400grads --jobs $(JOBS) --out demo/digits
	$(BIN)/anyorder compare stdlib-lm --option size=tiny --methods $(METHODS) --budget 80grads \
		--jobs $(JOBS) --out demo/stdlib-lm
	@echo
	@echo "Two reports to open in a browser:"
	@echo "  $(CURDIR)/demo/digits/report.html       handwritten digits, a small network"
	@echo "  $(CURDIR)/demo/stdlib-lm/report.html    a language model on Python's own source"
	@echo "What more there is:"
	@echo "  $(BIN)/anyorder study gallery gallery   claims of papers, measured, as pages in ./gallery"
	@echo "  $(BIN)/anyorder papers                  the catalogue of the papers behind it"
	@echo "  $(BIN)/anyorder compare --help          your own problem, your own limits"

.PHONY: test
test: $(STAMP)  ## Run the tests (under ten minutes on two cores)
	@$(PYTEST)

.PHONY: test-slow
test-slow: $(STAMP)  ## Run the tests that take long
	@$(PYTEST) -m "slow and not gpu"

.PHONY: lint
lint: $(STAMP)  ## Style, formatting, types, who imports whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright --project pyproject.toml
	@$(BIN)/lint-imports

.PHONY: docs
docs: $(STAMP)  ## Build the documentation into ./site
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/zensical build --clean --strict

.PHONY: generate
generate: $(STAMP)  ## Write the generated parts of README and documentation anew
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m anyorder_papers.page docs/papers.md

.PHONY: check
check: lint docs test  ## Everything a change must pass: lint, docs, tests with doctests

.PHONY: bench
bench: $(STAMP)  ## Measure speed and memory, as JSON into benchmarks/results
	@for file in $(filter-out $(LONG_BENCHMARKS),$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(BIN)/python $$file || exit 1; done

.PHONY: quality
quality: $(STAMP)  ## Compare the first-order methods, five seeds on two problems (hours; goes on if stopped)
	@$(BIN)/python benchmarks/quality.py

.PHONY: constraints
constraints: $(STAMP)  ## Pin the versions that are installed now
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable \
		| sed -E 's/\+[A-Za-z0-9.]+$$//' | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: build
build: $(STAMP)  ## Build wheels and source distributions of library, studies and papers into ./dist
	@for folder in . distributions/*; do $(BIN)/python -m build --outdir dist $$folder || exit 1; done

.PHONY: clean
clean:  ## Remove what the other targets made, .venv included
	rm -rf $(VENV) build dist site demo .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
