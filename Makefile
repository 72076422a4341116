# Every target makes its own virtual environment when there is none; `make` alone lists them.
#   make test ARGS="tests/test_x.py -k name"     hands arguments on to pytest
#   make demo PYTHON=python3.12                  picks the Python that makes the environment

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install -qq --disable-pip-version-check --only-binary=:all: -c constraints.txt
ARGS   ?=

# Tests run one thread per process: quicker side by side, and the same sums in the same order everywhere.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
PYTEST     := $(ONE_THREAD) $(PY) -m pytest -q

.PHONY: help setup demo test nightly restarts lint types check schema bench bench-gpu clean

help:
	@echo "make demo       train on a made-up scene, then render it, extract its mesh and score both"
	@echo "make test       all quick tests (those for a GPU are skipped where there is none)"
	@echo "make check      lint and types"
	@echo "make nightly    the slow tests too, then make restarts"
	@echo "make restarts   hurt ranks under torchrun, and count the runs that end as one that was left alone"
	@echo "make schema     write configs/schema.json, by which editors check a config, and docs/reference/config.md"
	@echo "make bench      time a training step, the kernels and rendering on the CPU, in under ten minutes"
	@echo "make bench-gpu  the GPU tests, then the same on the GPU, and the quality after a time of training"
	@echo "make clean      remove the virtual environment and the caches; runs/ stays"

# --- the virtual environment -------------------------------------------------------------------------------------

setup: $(VENV)/.installed

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found - install Python 3.11 or newer," \
	  "or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is" \
	  "$$($(PYTHON) --version 2>&1) - 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments -" \
	  "install its venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: requirements.txt constraints.txt $(VENV)/.created
	@echo "installing requirements.txt into $(VENV) (once; PyTorch is large)"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "installing requirements-dev.txt into $(VENV)"
	@$(PIP) -r requirements-dev.txt
	@touch $@

# --- use ---------------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed
	@start=$$(date +%s); set -e; \
	$(PY) train.py configs/demo.yaml $(ARGS); \
	$(PY) render.py runs/demo; \
	$(PY) extract_mesh.py runs/demo --out runs/demo/meshes/mesh.ply --out runs/demo/meshes/mesh.glb; \
	$(PY) evaluate.py runs/demo; \
	$(PY) report.py runs/demo; \
	echo "demo: done in $$(($$(date +%s) - start)) s; open runs/demo/report.html: pictures, video, mesh, numbers"

# --- checks ------------------------------------------------------------------------------------------------------

test: $(VENV)/.installed-dev
	@$(PYTEST) -n 2 --dist worksteal $(ARGS)

nightly: $(VENV)/.installed-dev
	@$(PYTEST) -n 2 --dist worksteal -m "slow or not slow" --hypothesis-profile=nightly $(ARGS)
	@$(if $(ARGS),:,$(MAKE) restarts)

restarts: $(VENV)/.installed
	@$(PY) -m benchmarks.cluster.restarts $(ARGS)

lint: $(VENV)/.installed-dev
	@$(PY) -m ruff check .

types: $(VENV)/.installed-dev
	@$(PY) -m mypy

check: lint types

schema: $(VENV)/.installed
	@$(PY) -c "from engine import experiment; print(experiment.schema_text(), end='')" > configs/schema.json.tmp
	@mv configs/schema.json.tmp configs/schema.json
	@$(PY) -m utils.config.reference > docs/reference/config.md.tmp
	@mv docs/reference/config.md.tmp docs/reference/config.md

bench: $(VENV)/.installed
	@$(PY) -m benchmarks.train_step $(ARGS)
	@$(PY) -m benchmarks.kernels $(ARGS)
	@$(PY) -m benchmarks.render_frame $(ARGS)

bench-gpu: $(VENV)/.installed-dev
	@$(PYTEST) -m cuda
	@$(PY) -m benchmarks.kernels --device cuda --rays 16384 --samples 262144 --pixels 1048576 $(ARGS)
	@$(PY) -m benchmarks.train_step --device cuda $(ARGS)
	@$(PY) -m benchmarks.render_frame --device cuda --steps 3000 $(ARGS)
	@$(PY) -m benchmarks.time_to_quality --device cuda --minutes 0.5,2 $(ARGS)

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
