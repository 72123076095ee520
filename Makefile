# make serve  builds, installs and serves the demo model on http://127.0.0.1:8000/v1
# make test   the same with the test extras, then the whole suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard csrc/smmf/*.hpp smmf_core/native/*.pyx smmf_core/native/*.pxd)

.PHONY: serve test lint format bench clean

serve: $(VENV)/.installed
	@$(BIN)/smmf serve $(TARGET)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(ARGS)

# Measures this machine and writes the README's table.
bench: $(VENV)/.installed-test
	$(BIN)/python -m bench.serve
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

$(VENV)/.installed-test: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
