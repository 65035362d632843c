# Everything there is to do in this checkout; `make help` lists it. Each target first installs what it needs into VENV.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BENCHMARKS ?= ir_speed materialize round_trip rules judging
PYTEST_ARGS ?=
CHECK_ARGS ?=
BENCH_ARGS ?=
DATA ?= $(GENSYNTH_DATA)
SECTIONS ?=
STAGES ?=
export PYTHON VENV

SHELL := bash
BIN := $(VENV)/bin
DEMO := $(VENV)/.gensynth-demo
DEV := $(VENV)/.gensynth-dev
DEMO_EXTRAS := torch,synth,draw
DEV_EXTRAS := all,test,dev
INSTALLED_FROM := pyproject.toml setup.py requirements.lock Makefile .ci/install

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format types layers packages docs bench bench-quick bench-compile bench-cost bench-search bench-search-digits results-cifar10 results-camvid results-persons devices check-targets check-gpu results results-tables lock ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' Makefile
	@echo "  with PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) PYTEST_ARGS='$(PYTEST_ARGS)'"

demo: $(DEMO) ## learn a generator on the digits task, from nothing to runs/demo
	rm -rf runs/demo
	$(BIN)/gensynth synthesize examples/digits.toml --out runs/demo

test: $(DEV) ## run the tests, but for the slow ones and those that need data
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-slow: $(DEV) ## run the slow tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "slow and not data" $(PYTEST_ARGS)

check-targets: $(DEV) ## check that every way to run every network computes the same (about ten minutes)
	$(BIN)/python bench/check_targets.py --processes $(WORKERS) --json docs/results/check_targets.json $(CHECK_ARGS)
	$(BIN)/python bench/results.py

check-gpu: $(DEV) ## check what ships for the Tegra X2's GPU on a GPU of this machine
	$(BIN)/python bench/check_targets.py --gpu --processes $(WORKERS) --json docs/results/check_gpu.json $(CHECK_ARGS)
	$(BIN)/python bench/results.py

lint: $(DEV) ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV) ## mend the style, where a program can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: packages ## check the types
	@set -o pipefail; $(BIN)/mypy \
		| sed -E 's#^build/packages/gensynth/(ir|passes|synth|backends)/#\1/#; s#^build/packages/gensynth/#api/#'

layers: packages ## check that each layer imports only the layers below it
	PYTHONPATH=build/packages $(BIN)/lint-imports --no-logo

# The packages as a wheel would hold them, copied anew each time, so that no module is missed and none is stale.
packages: $(DEV)
	@rm -rf build/packages
	@mkdir -p build
	@$(BIN)/python setup.py --quiet build_py --build-lib build/packages 2>build/packages.log || { cat build/packages.log; false; }

docs: $(DEV) ## run the code of README.md and docs/
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/test_documentation.py $(PYTEST_ARGS)

bench: bench-quick ## run every benchmark (about half an hour), each prints a table, and write docs/results.md
	$(MAKE) demo
	$(BIN)/python bench/demo.py runs/demo --json docs/results/demo.json
	$(BIN)/python bench/generator.py bench/generator.toml --repetitions 5 --json docs/results/generator.json
	$(BIN)/python bench/generator.py bench/generator-tight.toml --repetitions 3 --json docs/results/generator-tight.json
	$(BIN)/python bench/resume.py --kills 20 --json docs/results/resume.json
	$(BIN)/python bench/precision.py --json docs/results/precision.json
	$(BIN)/python bench/results.py

bench-quick: $(DEV) ## run the benchmarks that take a few minutes, or those that BENCHMARKS names
	@set -e; for name in $(BENCHMARKS); do printf '\n== bench/%s.py\n' $$name; \
		$(BIN)/python bench/$$name.py --json docs/results/$$name.json; done
	$(BIN)/python bench/results.py

bench-compile: $(DEV) ## measure compiled networks against ONNX Runtime, PyTorch and TVM (about half an hour)
	test -e runs/demo/summary.json || $(MAKE) demo
	$(BIN)/python bench/compile_kernels.py --json docs/results/compile_kernels.json
	$(BIN)/python bench/compile_speed.py --json docs/results/compile_speed.json $(BENCH_ARGS)
	$(BIN)/python bench/results.py

bench-cost: $(DEV) ## measure the cost models on published measurements, DATA=FOLDER (about an hour; SECTIONS picks)
	@test -n "$(DATA)" || { echo "bench-cost wants the folder of the measurements: make bench-cost DATA=FOLDER" >&2; exit 2; }
	OPENBLAS_NUM_THREADS=1 $(BIN)/python bench/cost.py --data $(DATA) --json docs/results/cost.json \
		$(if $(SECTIONS),--sections $(SECTIONS))
	$(BIN)/python bench/results.py

bench-search: $(DEV) ## compare searches on tables of trainings, DATA=FOLDER (hours; SECTIONS picks, BENCH_ARGS='--quick' tries)
	@test -n "$(DATA)" || { echo "bench-search wants the folder of the tables: make bench-search DATA=FOLDER" >&2; exit 2; }
	OPENBLAS_NUM_THREADS=1 $(BIN)/python bench/search.py --data $(DATA) --processes $(WORKERS) \
		$(if $(SECTIONS),--sections $(SECTIONS)) $(BENCH_ARGS)
	$(BIN)/python bench/results.py

bench-search-digits: $(DEV) ## compare searches on digits, every evaluation a training (hours; goes on where it was)
	$(BIN)/python bench/search_digits.py --processes $(WORKERS) --json docs/results/search_digits.json $(BENCH_ARGS)
	$(BIN)/python bench/results.py

# The three experiments: STAGES picks, BENCH_ARGS='--quick' tries every step in minutes, '--form full --device cuda' is for a
# GPU. Each goes on where it was cut off.
results-cifar10: $(DEV) ## CIFAR-10: baselines, synthesis, FermiNets, by one recipe, DATA=FOLDER (hours)
	$(call experiment,cifar10,$(DATA))

results-camvid: $(DEV) ## CamVid: RefineNet and its FermiNets, DATA=FOLDER that holds CamVid/ (an hour)
	$(call experiment,camvid,$(DATA)/CamVid)

results-persons: $(DEV) ## persons: DetectNet and its FermiNets, DATA=FOLDER that holds persons/ (hours)
	$(call experiment,persons,$(DATA)/persons)

define experiment
@test -n "$(DATA)" || { echo "results-$1 wants the folder of the data: make results-$1 DATA=FOLDER" >&2; exit 2; }
$(BIN)/python bench/experiment.py bench/experiments/$1.toml --data $2 $(if $(STAGES),--stages $(STAGES)) $(BENCH_ARGS) \
	$(if $(findstring --quick,$(BENCH_ARGS)),,--json docs/results/experiment-$1.json)
$(BIN)/python bench/results.py
endef

devices: $(DEV) ## calibrate the devices that ship anew, DATA=FOLDER (a few minutes)
	@test -n "$(DATA)" || { echo "devices wants the folder of the measurements: make devices DATA=FOLDER" >&2; exit 2; }
	OPENBLAS_NUM_THREADS=1 $(BIN)/python bench/cost_devices.py --data $(DATA)

results: $(DEV) ## write docs/results.md and its plots anew from the stored figures
	$(BIN)/python bench/results.py

results-tables: results ## the same as results

lock: ## renew requirements.lock (torch stays: to change it, edit its line and run this)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install "$$(grep '^torch==' requirements.lock)" --editable '.[all,test,dev]'
	{ grep '^#' requirements.lock; echo; \
		build/lock/bin/python -m pip list --format=freeze --exclude gensynth --exclude pip | sed 's/+.*//'; \
		} >build/lock/requirements.lock
	mv build/lock/requirements.lock requirements.lock
	rm -rf build/lock

ci: ## run what continuous integration runs
	.ci/run

clean: ## remove what was built or cached, but not the environment
	rm -rf build dist gensynth.egg-info runs/demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): $(INSTALLED_FROM)
	.ci/install $(DEMO_EXTRAS)
	@touch $@

$(DEV): $(INSTALLED_FROM)
	.ci/install $(DEV_EXTRAS)
	@touch $(DEMO) $@
