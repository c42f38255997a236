# make demo   environment .venv (no torch), then the node and a camera process -> demo_output/
# make dev    environment .venv-dev (everything, with torch)
# make lint   ruff and mypy in .venv-dev
# make test   lint, and the tests of every day
# make test-all   lint and all tests but the next: packaging, Ray, peers too
# make test-slow  the training test that takes minutes
# make test-lowest  predict, evaluate and node with the lowest versions that setup.py allows
# make gpu    tests and benchmark of an NVIDIA GPU by PYTHON as it is -> gpu_results/, 8 minutes
# make coverage   lines of kdc_core and kdc_ros that test-all runs, its processes included

PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
GPU_RESULTS ?= gpu_results
# A folder of wheels for what PYTHON lacks, where there is no network.
GPU_WHEELS ?=

# A sourced ROS 2 whose rclpy this Python imports is used as it is; else rclpy comes as wheels.
# The two never share an environment, so the kind is part of the stamp's name.
ROS := $(shell test -n "$$ROS_DISTRO" && $(PYTHON) -c 'import rclpy' 2>/dev/null && echo "$$ROS_DISTRO")
KIND := $(or $(ROS),wheels)
ifeq ($(ROS),)
WHEELS := ,ros-wheels
# rerun needs numpy 2, which a distribution's message modules may not bear.
VIEW := ,view
else
VENV_FLAGS := --system-site-packages
# The distribution's message modules are compiled against one numpy; the next major breaks them.
NUMPY := $(shell $(PYTHON) -c 'import numpy; print("numpy<%d" % (int(numpy.__version__.split(".")[0]) + 1))')
endif

PIP := -m pip -qq --disable-pip-version-check
DEMO := .venv/installed-$(KIND)
DEV := .venv-dev/installed-$(KIND)
LOWEST := .venv-lowest/installed-$(KIND)

# Set by the rclpy wheels for their own child processes; here it would keep a Python of another
# environment from finding its libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

# Two workers, of one thread each, run what is not timed; then one runs what is.
# A sourced ROS brings pytest plugins of its own, and old ones stop a new pytest at the start.
PYTEST := PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 .venv-dev/bin/python -m pytest
BESIDE := -p xdist -n 2 --dist loadfile

.PHONY: demo dev lint test test-all test-slow test-lowest coverage gpu

demo: $(DEMO)
	.venv/bin/python -m kdc_ros.demo

dev: $(DEV)

test: lint
	OMP_NUM_THREADS=1 $(PYTEST) $(BESIDE) -m 'not (timed or all or overfit)' $(PYTEST_ARGS)
	$(PYTEST) -m 'timed and not all' $(PYTEST_ARGS) || [ $$? -eq 5 ]

test-all: lint
	OMP_NUM_THREADS=1 $(PYTEST) $(BESIDE) -m 'not (timed or overfit)' $(PYTEST_ARGS)
	$(PYTEST) -m timed $(PYTEST_ARGS) || [ $$? -eq 5 ]

test-slow: $(DEV)
	$(PYTEST) -m overfit -s

test-lowest: $(LOWEST)
	$(subst .venv-dev,.venv-lowest,$(PYTEST)) -m 'not timed' test/test_installed.py test/ros/test_demo.py test/ros/test_node.py $(PYTEST_ARGS)

coverage: $(DEV)
	.venv-dev/bin/python -m coverage erase
	-OMP_NUM_THREADS=1 $(subst -m pytest,-m coverage run -m pytest,$(PYTEST)) $(BESIDE) -m 'not (timed or overfit)' $(PYTEST_ARGS)
	.venv-dev/bin/python -m coverage combine -q
	.venv-dev/bin/python -m coverage report

gpu:
	$(PYTHON) tools/gpu.py --output '$(GPU_RESULTS)' $(if $(GPU_WHEELS),--wheels '$(GPU_WHEELS)')

lint: $(DEV)
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy

# $(call venv,FOLDER): make it, or make it anew if it was made for another kind of ROS.
define venv
@if test ! -e $@ && ls $(1)/installed-* >/dev/null 2>&1; then rm -rf $(1); fi
@test -x $(1)/bin/pip || { echo "$(1): making it ($(KIND))"; $(PYTHON) -m venv $(VENV_FLAGS) $(1); }
endef

$(DEMO): setup.py
	$(call venv,.venv)
	@echo ".venv: installing kdc with ONNX Runtime$(if $(WHEELS), and rclpy) (one to three minutes)"
	@.venv/bin/python $(PIP) install -e '.[eval$(WHEELS)]' $(if $(NUMPY),'$(NUMPY)')
	@touch $@

$(DEV): setup.py
	$(call venv,.venv-dev)
	@echo ".venv-dev: installing $(TORCH) (one to five minutes)"
	@.venv-dev/bin/python $(PIP) install '$(TORCH)' $(if $(NUMPY),'$(NUMPY)')
	@echo ".venv-dev: installing kdc and its tools (two to five minutes)"
	@.venv-dev/bin/python $(PIP) install -e '.[eval,train,openvino,rtx$(WHEELS)$(VIEW),dev]' $(if $(NUMPY),'$(NUMPY)')
	@touch $@

# Of wheels alone, so the lowest that this Python has; empy, which rclpy's ask for, has none.
$(LOWEST): setup.py
	@rm -rf .venv-lowest # what is installed already would be kept, be it a later one
	$(call venv,.venv-lowest)
	@echo ".venv-lowest: installing the lowest versions (one to three minutes)"
	@.venv-lowest/bin/python $(PIP) install hypothesis pytest uv
	@.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --only-binary :all: --no-binary empy \
		--editable '.[eval$(WHEELS)]' $(if $(NUMPY),'$(NUMPY)')
	@touch $@
