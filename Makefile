# make demo         CR-NAS on a small data set          -> work_dirs/demo
# make demo-detnas  DetNAS on a small data set          -> work_dirs/demo-detnas
# make test         the tests                  (ARGS=... goes to pytest)
# make lint         the linter
# make env          only the environment that these four need, .venv
# make clean        removes .venv and what tools left behind; work_dirs/ stays
#
# PYTHON=/path/to/python: use that environment, which has torch and the mm
# packages, and build or install nothing.
# BASE_PYTHON=/path/to/python3: the Python that .venv is made of.

BASE_PYTHON ?= python3

ifdef PYTHON
PY := $(PYTHON)
export PYTHONPATH := $(CURDIR)$(addprefix :,$(PYTHONPATH))
else
PY := .venv/bin/python
endif

.PHONY: help env demo demo-detnas test lint clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

env:
ifdef PYTHON
	@command -v "$(PY)" >/dev/null || { echo "PYTHON=$(PY): no such program"; exit 1; }
	@"$(PY)" tools/make_env.py --check $(MODULES)
else
	@command -v "$(BASE_PYTHON)" >/dev/null || { echo "$(BASE_PYTHON): \
	no such program; name a Python 3.10 or newer in BASE_PYTHON"; exit 1; }
	@"$(BASE_PYTHON)" tools/make_env.py
endif

demo: env
	"$(PY)" -m mmcr.cli demo

demo-detnas: env
	"$(PY)" -m mmcr.cli demo-detnas

# Several processes of one thread: the tests' networks are too small to share out.
# Files stay whole, as their tests share what they trained; tests/conftest.py says in
# which order.
test: MODULES := pytest xdist
test: env
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -q -n auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(ARGS)

lint: env
	"$(PY)" -m ruff check .
	"$(PY)" -c 'from importlinter.cli import lint_imports_command as main; main()' --no-logo

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find mmcr tools tests configs -name __pycache__ -type d -prune -exec rm -rf {} +
