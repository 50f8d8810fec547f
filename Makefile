# Two commands on a fresh machine:
#   make demo    shows the main job on an embedded PostgreSQL
#   make test    installs what the tests need and runs all of them
# They work as root in a container and as a plain user. PYTHON=... chooses the interpreter (3.11 or newer).

VENV := .venv
BIN := $(VENV)/bin
# Tests wait for servers and programs half of the time.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 2 ? 6 : n + 2)))

.PHONY: help demo test check format bench lock clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'make check   what must be clean: lint, format, types, layers, documentation'
	@echo 'make bench   measures against the other tools (BENCH_ARGS=...)'
	@echo 'make format  formats the code'
	@echo 'make lock    pins the dependencies anew'
	@echo 'make clean   removes everything that was made here'

BUILT := pyproject.toml setup.py src/pgstow/postgres/_copy_rows.c src/pgstow/postgres/_row_digests.c

$(VENV)/.runtime: requirements.lock $(BUILT) scripts/make-venv
	@scripts/make-venv $(VENV) requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements.lock $(BUILT) scripts/make-venv
	@scripts/make-venv $(VENV) requirements-dev.lock
	@touch $(VENV)/.runtime $@

demo: $(VENV)/.runtime
	@$(BIN)/pgstow demo $(DEMO_ARGS)

test: $(VENV)/.dev
	@scripts/install-test-tools
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	@scripts/install-test-tools
	$(BIN)/python -m bench $(BENCH_ARGS)

lock: $(VENV)/.dev
	@scripts/lock $(VENV)

clean:
	rm -rf $(VENV) .tools build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -exec rm -rf {} +
