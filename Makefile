# Development commands. Each does its own set-up; on a fresh machine only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

# malloc limits: see diag/assets/train_mini.py
TRAIN_ENV := MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=200000000

.PHONY: setup setup-dev demo test lint mini clean

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tdmoe-diag needs Python 3.11 to 3.13: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/tdmoe-diag spectra --model mini

test: setup-dev
	@$(BIN)/python -m pytest

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Retrain the built-in model: make mini TEXT=train.txt.gz TO=DIR [DEVICE=cuda]
mini: setup
	@test -n "$(TEXT)" -a -n "$(TO)" || { echo "make mini TEXT=FILE TO=DIR [DEVICE=cuda]"; exit 2; }
	$(TRAIN_ENV) $(BIN)/python -m diag.assets.train_mini --text $(TEXT) --to $(TO) --device $(or $(DEVICE),cpu)
	$(BIN)/python -m diag.assets.card --model $(TO) --train $(TEXT)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
