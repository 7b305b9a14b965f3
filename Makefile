# make demo | make test | make test-slow | make lint | make bench: each sets up what it needs, once.
.PHONY: setup demo test test-slow lint bench clean
VENV := .venv
PY := $(VENV)/bin/python
# The first interpreter that answers; another one: make setup PYTHON=/path/to/python3
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-dev.txt requirements-bench.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 to 3.13 found; name one with make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

demo: setup
	$(PY) launch.py --experiment=resnet_degradation

test: setup
	$(PY) -m pytest

test-slow: setup
	$(PY) -m pytest -m slow

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# On CPU; PyTorch takes part if $(VENV) has it.
bench: setup
	JAX_PLATFORMS=cpu $(PY) -m benchmarks.train_step --net=resnet20
	JAX_PLATFORMS=cpu $(PY) -m benchmarks.train_step --net=resnet50
	JAX_PLATFORMS=cpu $(PY) -m benchmarks.train_step --net=vgg_d
	JAX_PLATFORMS=cpu $(PY) -m benchmarks.train_step --net=lenet5_modern
	JAX_PLATFORMS=cpu $(PY) -m benchmarks.seeds
	JAX_PLATFORMS=cpu $(PY) -m benchmarks.startup

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
