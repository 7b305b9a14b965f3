# make demo | test | test-slow | test-all | test-colab | test-faults | mutants | tpu-check | lint | docs | bench: each first sets
# up .venv if needed.
.PHONY: setup demo test test-slow test-all test-colab test-faults mutants tpu-check lint docs bench clean
VENV := .venv
PY := $(VENV)/bin/python
# The first interpreter that works. To choose another: make setup PYTHON=/path/to/python3
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

setup: $(VENV)/ready

# `venv --clear` would empty the environment that a symbolic link points to.
$(VENV)/ready: requirements.txt pyproject.toml
	$(if $(shell test -L '$(VENV)' && echo link),$(error $(VENV) is a symbolic link and its environment is \
	out of date or missing: remove the link, or set up another environment with VENV=.venv-new))
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 to 3.13 found; name one with make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup
	$(PY) launch.py --experiment=resnet_degradation

test: setup
	$(PY) -m pytest

test-slow: setup
	$(PY) -m pytest -m slow

# The tests on every supported Python, each in its own environment with the newest JAX for it.
# PYENV_VERSION makes pyenv provide all of them. If the interpreters are not on PATH:
# make test-all PYTHONS='/path/to/python3.11 /path/to/python3.12'
PYTHONS := python3.11 python3.12 python3.13
test-all: export PYENV_VERSION := 3.11:3.12:3.13
test-all:
	for python in $(PYTHONS); do $(MAKE) test VENV=.venv-$$(basename $$python) PYTHON=$$python || exit; done

# On the versions of Colab's images: they are installed first, and installing the project must leave
# them as they are. Then the notebooks in their smoke form, and the tests of what depends on JAX.
COLAB := tests/testdata/colab/constraints.txt
COLAB_PYTHON ?= python3.13
COLAB_TESTS := tests/config_test.py tests/optim tests/data/augment_test.py tests/data/eval_views_test.py \
	tests/training/checkpoint_test.py tests/training/checksum_file_test.py \
	tests/training/saved_parameters_test.py tests/training/train_step_test.py tests/training/train_test.py \
	tests/layers/batch_norm_test.py tests/layers/pooling_test.py tests/export tests/notebooks_test.py
test-colab: export PYENV_VERSION := 3.13:3.12:3.11
test-colab:
	$(COLAB_PYTHON) -m venv --clear .venv-colab
	.venv-colab/bin/python -m pip install --quiet --disable-pip-version-check -r $(COLAB)
	.venv-colab/bin/python -m pip install --quiet --disable-pip-version-check '.[data]' pytest pytest-xdist ipykernel pyyaml
	.venv-colab/bin/python tests/helpers/colab.py $(COLAB)
	.venv-colab/bin/python -m pytest $(COLAB_TESTS)

# Random commands, damaged images, files of weights and run folders, full disks (about 30 minutes on
# 2 cores), and kills of real runs (about 10; KILLS=100 for longer).
KILLS := 30
test-faults: setup
	CNN_JAX_FAULTS=long $(PY) -m pytest -n 0 tests/faults
	$(PY) tests/helpers/faults.py --kills=$(KILLS)

# One-line bugs, each of which the tests must notice; half an hour on 2 cores.
mutants: setup
	$(PY) tests/faults/mutants.py

# Every model's step for TPUs that are not here, about half an hour on 2 cores.
tpu-check: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt 'jax[tpu]'
	$(PY) -m pytest -m tpu tests/cost/tpu_check_test.py

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The documentation site, build/docs/index.html; a warning is an error.
docs: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	JAX_PLATFORMS=cpu $(PY) docs/site/build.py

# On CPU, about 18 minutes on 2 cores; with PyTorch if $(VENV) has it. Prints the tables of benchmarks/README.md.
BENCH := JAX_PLATFORMS=cpu $(PY) -m
RESULTS := bench.jsonl
STEP := $(BENCH) benchmarks.train_step --peers=flax,torch --json=$(RESULTS)
STEPS := resnet50 resnet20 resnet56 plain56 vgg_d alexnet googlenet inception_v3
SMALL_STEPS := small_cnn lenet5 mlp_500_150
bench: setup
	rm -f $(RESULTS)
	for model in $(STEPS); do $(STEP) --model=$$model --seconds=1 --blocks=3 || exit; done
	for model in $(SMALL_STEPS); do $(STEP) --model=$$model --seconds=0.5 --blocks=5 || exit; done
	$(BENCH) benchmarks.epoch --json=$(RESULTS)
	$(BENCH) benchmarks.evaluate --models=resnet20 --json=$(RESULTS)
	for protocol in ten_crop dense; do $(BENCH) benchmarks.views --protocol=$$protocol --seconds=1 --json=$(RESULTS) || exit; done
	$(BENCH) benchmarks.seeds --models=mlp,lenet5_modern --counts=1,4 --json=$(RESULTS)
	$(BENCH) benchmarks.startup --repeats=2 --json=$(RESULTS)
	@echo; $(PY) -m benchmarks.table $(RESULTS)

clean:
	rm -rf $(VENV) .venv-* .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
