# Development commands. Each does its own set-up; on a fresh machine only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

# malloc limits: see tools/mini/train.py
TRAIN_ENV := MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=200000000

.PHONY: setup setup-dev demo test lint house golden campaign bench gpu mini notebooks clean

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("tdmoe-diag needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12" % sys.version_info[:2] if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) -e '.[dev]'
	@touch $@

# About two minutes on two cores
demo: setup
	@$(BIN)/tdmoe-diag compare --model mini --preset quick

# Two processes of one thread each, about 2 GB: make test JOBS=4
test: setup-dev
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# How large the house is, and whether its rules hold
house:
	@$(PYTHON) -m tools.house

# What every command wrote and said when it was recorded, against what it does now: two minutes; make golden RECORD=1
golden: setup-dev
	@PYTHONPATH=tests $(BIN)/python -m golden $(if $(RECORD),--record) $(if $(ONLY),--only $(ONLY))

# Kill points, mutated files, wrong answers of a hub: ten minutes; make campaign SECONDS=60 SEED=1 JOBS=4 ONLY=kills
campaign: setup-dev
	@PYTHONPATH=tests $(BIN)/python -m campaigns --seconds $(or $(SECONDS),600) --seed $(or $(SEED),0) --jobs $(JOBS) \
		$(if $(ONLY),--only $(ONLY)) $(if $(CASE),--case $(CASE)) $(if $(KEEP),--keep $(KEEP))

# About forty minutes on two cores, and 12 GB of disk; rewrites bench/RESULTS.md
bench: setup-dev
	@$(BIN)/python -m bench

# Run the notebooks again and keep their outputs: a minute or two
notebooks: setup-dev
	@$(BIN)/python -m notebooks.execute

# Checks and benchmarks on a GPU with the given interpreter: no set-up, no network. make gpu PYTHON=python3
gpu:
	@$(PYTHON) -m bench.gpu

# Retrain the built-in model: make mini TEXT=train.txt.gz TO=DIR [DEVICE=cuda]
mini: setup
	@test -n "$(TEXT)" -a -n "$(TO)" || { echo "make mini TEXT=FILE TO=DIR [DEVICE=cuda]"; exit 2; }
	$(TRAIN_ENV) $(BIN)/python -m tools.mini.train --text $(TEXT) --to $(TO) --device $(or $(DEVICE),cpu)
	$(BIN)/python -m tools.mini.card --model $(TO) --train $(TEXT)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
