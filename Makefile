# Every target installs what it needs into .venv and does nothing twice. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Triton's wheel needs Python 3.11 or 3.12.
PYTHON ?= $(shell for each in python3 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$each; break; }; done)
# Real data that lies beside the checkout is used unless another folder is named.
ifneq ($(wildcard ../shared/data/README.md),)
export SIGHTLINE_DATA ?= $(abspath ../shared/data)
endif

BIN := .venv/bin
UV := $(BIN)/uv
PERF_ANALYZER := $(BIN)/perf_analyzer
RECIPE ?= mnist

# Some containers forbid Python to keep what it compiled. Then each program that is started compiles anew what it imports: 24 s for
# Lightning instead of 9.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/ready ## Install everything into .venv (about 6 GB, most of it PyTorch)

.venv/ready: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "error: Sightline needs Python 3.11 or 3.12 (with venv): install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { echo "error: $(PYTHON) cannot make a virtual environment: install python3-venv" >&2; exit 1; }
	@[ -x $(UV) ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	$(UV) pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[all]' --group dev
	@touch $@

.PHONY: demo
demo: .venv/ready ## Train, export, serve, classify, verify: the whole line on MNIST, in some five minutes
	$(BIN)/python scripts/demo.py

.PHONY: train
train: .venv/ready ## Train a recipe (make train RECIPE=mnist)
	$(BIN)/sightline train $(RECIPE)

.PHONY: models
models: .venv/ready ## Train, export and verify every model of the courses (but cifar10); goes on where it was stopped
	$(BIN)/python scripts/models.py

.PHONY: models-own-vgg16
models-own-vgg16: .venv/ready ## The same, with cifar10 (hours without a GPU) and what is transferred from it
	$(BIN)/python scripts/models.py --own-vgg16

.PHONY: models-page
models-page: .venv/ready ## Write docs/models.md from the reports of the finished runs
	$(BIN)/python docs/make_models_page.py

.PHONY: serve
serve: .venv/ready ## Serve the published models with Triton until Ctrl-C
	$(BIN)/sightline serve

.PHONY: test
test: lint $(PERF_ANALYZER) ## Check style, types and imports, then run the tests (with the real server)
	$(BIN)/pytest -m "not slow and not gpu and not browser" --numprocesses 2

.PHONY: test-all
test-all: lint $(PERF_ANALYZER) ## Also the slow tests, and those for a GPU or a browser
	$(BIN)/pytest

.PHONY: bench-clients
bench-clients: $(PERF_ANALYZER) ## Hold `sightline score` to the loops that people write themselves: images/s, CPU seconds, a slow server
	$(BIN)/python scripts/bench_clients.py --out build/bench_clients.json

.PHONY: bench-peers
bench-peers: $(PERF_ANALYZER) ## Race FastAPI, LitServe, BentoML, MLServer, KServe and Ray Serve; goes on where it was stopped (QUICK=1 to try it)
	$(BIN)/python benchmarks/race.py run $(if $(QUICK),--rounds 1 --window 1 --measured build/peers/quick.jsonl --out build/bench_peers_quick.json,--docs) $(ARGS)

.PHONY: bench-peers-tune
bench-peers-tune: .venv/ready ## Try the settings of each peer with each model, and keep the fastest for bench-peers
	$(BIN)/python benchmarks/race.py tune $(ARGS)

.PHONY: bench-guard
bench-guard: .venv/ready ## Hold Sightline's speed, as ratios to ONNX Runtime and FastAPI, to the stored ones; fail on a drop of 15 %
	$(BIN)/python benchmarks/race.py guard $(ARGS)

.PHONY: bench-guard-store
bench-guard-store: .venv/ready ## Store the ratios of this machine
	$(BIN)/python benchmarks/race.py guard --store $(ARGS)

# Apart from `make test`: tracing makes the tests slower, and one of them bounds the seconds of a refusal.
.PHONY: coverage
coverage: .venv/ready $(PERF_ANALYZER) ## Measure the branch coverage of the tests, print it, and hold its lower bound
	$(BIN)/pytest -m "not slow and not gpu and not browser" --numprocesses 2 --cov --cov-report=term \
		--deselect tests/contract/test_card_fuzz.py::test_a_text_of_the_greatest_length_takes_bounded_time_to_refuse

.PHONY: test-base
test-base: .venv/ready ## Test the base install on each of CPython 3.11, 3.12 and 3.13 that is found
	scripts/test-base

.PHONY: lint
lint: .venv/ready ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

.PHONY: docs
docs: .venv/ready ## Build the documentation site into site/, strictly and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean
	@echo "site/index.html is the first page; with search: $(BIN)/python -m http.server --directory site 8080"

.PHONY: format
format: .venv/ready ## Let ruff put the code in shape
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

.PHONY: perf-analyzer
perf-analyzer: $(PERF_ANALYZER) ## Install NVIDIA's perf_analyzer, for `sightline bench`

# The last wheel that holds the binary and runs with glibc 2.36; its two libraries come from Debian and from a wheel.
$(PERF_ANALYZER): | .venv/ready
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --target .tools/perf_analyzer tritonclient==2.51.0 nvidia-cuda-runtime-cu12==12.9.79
	@ldconfig -p | grep -q libb64.so.0d || scripts/fetch-libb64 .tools/perf_analyzer
	@printf '%s\n' '#!/bin/sh' 'tools=$$(dirname "$$(readlink -f "$$0")")/../../.tools/perf_analyzer' \
		'LD_LIBRARY_PATH="$$tools/nvidia/cuda_runtime/lib:$$tools/usr/lib/x86_64-linux-gnu$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" \' \
		'    exec "$$tools/bin/perf_analyzer" "$$@"' > $@
	@chmod +x $@ && $@ --version

.PHONY: constraints
constraints: .venv/ready ## Renew constraints.txt: the exact versions of everything
	$(BIN)/python scripts/renew_constraints.py

.PHONY: clean
clean: ## Remove what training, exporting and testing made; keeps .venv and data
	rm -rf runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find model_repository -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
