# make demo         a new environment, then a few minutes of training on real crystals
# make test         the tests, with the coverage of the package (fails under 90 % of lines)
# make lint         ruff, its format check, mypy
# make docs         the documentation, in docs/_build/html; a warning is an error
# make test-oldest  the tests with the oldest versions that setup.py allows, in an environment of their own
# make clean        removes the environment and the caches
#
# PYTHON (an interpreter) and VENV (the folder of the environment) may be set: make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
PYTEST_FLAGS ?= --cov=torch_geometric_crystal --cov-report=term --cov-fail-under=90

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --constraint $(CONSTRAINTS)
EXTRAS := train,matbench,ase

.PHONY: demo test lint docs test-oldest clean

demo: $(VENV)/user.stamp
	$(VENV)/bin/tgcrystal demo

# One thread a worker: two workers that each start a thread per core would wait for each other.
test: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(PY) -m pytest --numprocesses $(JOBS) --dist loadgroup $(PYTEST_FLAGS)

lint: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(VENV)/docs.stamp
	$(PY) -m sphinx --fail-on-warning --keep-going --builder html docs docs/_build/html

# Old releases warn about newer ones, so warnings are no errors here. torch's old builds for Linux bring CUDA: several GB.
test-oldest:
	$(MAKE) test VENV=.venv/oldest CONSTRAINTS=constraints-oldest.txt PYTEST_FLAGS="--override-ini filterwarnings=default"

clean:
	rm -rf $(VENV) build dist docs/_build docs/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage .hypothesis

$(PY):
	$(PYTHON) -m venv $(VENV)

# torch first and by its pinned version: asked for by a range, pip would take the newest.
$(VENV)/torch.stamp: $(CONSTRAINTS) | $(PY)
	$(PIP) "$$(grep '^torch==' $(CONSTRAINTS))"
	touch $@

$(VENV)/user.stamp: setup.py $(VENV)/torch.stamp
	$(PIP) --editable ".[$(EXTRAS)]"
	$(PIP) --no-deps matbench
	touch $@

$(VENV)/dev.stamp: $(VENV)/user.stamp
	$(PIP) --editable ".[$(EXTRAS),kernels,parquet,dev]"
	touch $@

$(VENV)/docs.stamp: $(VENV)/user.stamp
	$(PIP) --editable ".[$(EXTRAS),docs]"
	touch $@
