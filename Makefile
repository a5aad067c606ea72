# Every recipe makes what it needs, in environments inside the checkout.
# Another Python: make test PYTHON=python3.12 VENV=.venv-3.12

SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
PYTHON_OLDEST ?= python3.11
VENV ?= .venv

export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
CONSTRAINTS := tests/constraints.txt
INSTALL = $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python $(RESOLUTION) \
	--constraint $(CONSTRAINTS) --editable

# TensorFlow's C++ side logs dozens of lines as it is imported.
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: demo bench studies figures torch onnx orbax ray mlflow wandb kubernetes recipes everything test test-slow test-oldest lint typecheck build-check wheel-check docs docs-check notebook clean

demo: $(VENV)/.has-examples $(VENV)/.has-plots $(patsubst %,$(VENV)/.has-%,$(filter jax torch,$(KERAS_BACKEND)))
	$(VENV)/bin/python examples/quickstart.py $(ARGS)

# The pictures in docs.
figures: notebook $(VENV)/.has-examples $(VENV)/.has-plots $(patsubst %,$(VENV)/.has-%,$(filter jax torch,$(KERAS_BACKEND)))
	$(VENV)/bin/python examples/figures.py $(ARGS)
	cp .build/tutorial/*.png docs/figures/tutorial

# What DSD costs, for docs/benchmarks.md.
bench: $(VENV)/.has-bench
	$(VENV)/bin/python benchmarks/cost/bench.py $(ARGS)

# A task of docs/results.md: make studies TASK=mnist-shifts DATA=mnist.npz resumes or rebuilds it.
studies: $(VENV)/.has-compare $(VENV)/.has-jax $(VENV)/.has-plots
	$(VENV)/bin/python benchmarks/studies/run.py --task=$(TASK) $(if $(DATA),--data=$(DATA)) $(ARGS)

# What these need is tested where it is installed.
torch onnx orbax ray mlflow wandb kubernetes recipes everything: %: $(VENV)/.has-%

test: $(VENV)/.has-test
	$(VENV)/bin/python tools/run_tests.py -m "not slow" $(ARGS)

test-slow: $(VENV)/.has-test
	$(VENV)/bin/python tools/run_tests.py -m "slow and not exhaustive" $(ARGS)

# The compiled programs that JAX 0.4.30 wrote crash it when it reads them.
test-oldest: export JAX_ENABLE_COMPILATION_CACHE := false
test-oldest:
	@$(MAKE) --no-print-directory test PYTHON=$(PYTHON_OLDEST) VENV=.venv-oldest RESOLUTION='--resolution lowest-direct'

lint: $(VENV)/.has-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

typecheck: $(VENV)/.has-dev
	$(VENV)/bin/mypy keras_dsd

# The tests take what is installed beside the Python on PATH.
build-check: $(VENV)/.has-test
	bazel query //...
	bazel build //...
	PATH="$(abspath $(VENV))/bin:$$PATH" bazel test --test_output=errors //:unit_tests

wheel-check: $(VENV)/.has-dev
	tools/check_wheel.sh $(VENV)/bin/python

# mkdocs-material says in every build what it thinks of MkDocs 2.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.has-docs
	$(VENV)/bin/mkdocs build --strict

docs-check: docs
	$(VENV)/bin/python tools/check_site.py .build/site .build/screenshots

notebook: $(VENV)/.has-docs
	$(VENV)/bin/python tools/make_notebook.py
	@rm -rf .build/tutorial && mkdir -p .build/tutorial && cp docs/tutorial.ipynb .build/tutorial
	$(VENV)/bin/python -m pytest --nbmake --nbmake-timeout=600 .build/tutorial/tutorial.ipynb

clean:
	rm -rf .venv* .build dist *.egg-info .*_cache .hypothesis saved_model
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stamp is why a second run installs nothing. uv installs in half pip's time; what pip was told
# to look through, it looks through too. Where Python may write no bytecode, every program that a
# test starts would compile TensorFlow again: 20 seconds each.
$(VENV)/.has-%: setup.cfg pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/uv
	$(INSTALL) '.[$*]'
	@touch $@

# All that tests and checks need, resolved at once.
EVERYTHING := dev docs kubernetes mlflow onnx orbax ray recipes torch wandb
empty :=
comma := ,
$(VENV)/.has-everything: setup.cfg pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/uv
	$(INSTALL) '.[$(subst $(empty) $(empty),$(comma),$(EVERYTHING))]'
	@touch $(patsubst %,$(VENV)/.has-%,$(EVERYTHING) examples test) $@

$(VENV)/bin/uv:
	@'$(PYTHON)' -c '$(SUPPORTED)' 2>/dev/null || { echo "make: needs a Python 3.11, 3.12 or 3.13 that can make an environment" \
		"(on Debian: apt-get install python3-venv); or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'uv~=0.13.9'
