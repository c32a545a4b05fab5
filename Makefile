# Two commands do everything: `make demo` and `make test`. Each creates .venv when it is missing and
# installs into it again only when the dependencies or the sources of the native kernel have changed.
#
#   PYTHON=python3.12            another interpreter for .venv
#   PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
#                                torch without its CUDA libraries, where pip would fetch them
#   ARGS="-k bridge -x"          further arguments of the command that a target runs
#   JOBS=1                       processes that run tests; by default one a processor, at most 4

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
ARGS ?=
JOBS ?= auto
VENV := .venv
BIN := $(VENV)/bin
NATIVE := setup.py $(wildcard physics/carfac/native/*.cc physics/carfac/native/*.h)
DEMO := runs/demo
BENCH := runs/benchmark

.PHONY: help demo test test-install torture fuzz soak sanitize lint format bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          train on the embedded recordings; results and pictures in $(DEMO)"
	@echo "make test          run the tests"
	@echo "make test-install  the slow tests: wheel, sdist, editable, isolated, without a compiler"
	@echo "make torture       kill a run thirty times, and worse; compare its bits with those of an undisturbed one"
	@echo "make fuzz          configs, recordings and checkpoints at random; FUZZ_INPUTS=2000 of each"
	@echo "make soak          two hours of training; memory, file handles and threads must stay flat"
	@echo "make sanitize      the tests of the native kernel, built with GCC's sanitizers in build/sanitize"
	@echo "make lint          ruff check, ruff format --check, pyright"
	@echo "make format        let ruff mend what it can"
	@echo "make bench         time data path, CAR-FAC, front ends, losses, synthesis; tables in $(BENCH)"
	@echo "                   (ARGS=--carfac_path=DIR: google/carfac's models in the same run)"
	@echo "make clean         remove caches and .venv, never runs/"

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.compare --config=experiments/configs/tones.py --workdir=$(DEMO) $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses=4 --dist=loadfile $(ARGS)

test-install: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow tests/install $(ARGS)

torture: $(VENV)/.installed-test
	$(BIN)/python -m experiments.torture $(ARGS)

fuzz: $(VENV)/.installed-test
	FUZZ_INPUTS=$${FUZZ_INPUTS:-2000} $(BIN)/python -m pytest -s --timeout=3600 tests/hybrid/test_fuzz.py tests/data/test_data_fuzz.py $(ARGS)

soak: $(VENV)/.installed
	$(BIN)/python -m experiments.soak --workdir=runs/soak $(ARGS)

sanitize: $(VENV)/.installed-test
	.ci/sanitize $(BIN)/python $(ARGS)

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-test
	$(BIN)/python -m experiments.benchmark_data
	$(BIN)/python -m experiments.benchmark --out=$(BENCH) $(ARGS)
	$(BIN)/python -m experiments.benchmark_frontends --out=$(BENCH)
	$(BIN)/python -m experiments.benchmark_losses --out=$(BENCH)
	$(BIN)/python -m experiments.benchmark_synth --out=$(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The marker of an extra also depends on the plain install, so that one `make` never runs pip twice at once.
$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	@touch $@

# Installs what an extra needs, not the package again: that would compile the kernel once more.
$(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"], sep="\n")' > $(VENV)/$*.txt
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -r $(VENV)/$*.txt
	@touch $@

# PESQ is compiled while it is installed; where that fails, its tests are left out.
$(VENV)/.installed-test: $(VENV)/.installed-pesq
$(VENV)/.installed-pesq: $(VENV)/.installed
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt pesq || echo "pesq cannot be compiled here: its tests are left out"
	@touch $@
