# make app   create the environment, install, start the page on the bundled models
# make test  lint and run every test (library, panels, browser)

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
WORKERS ?= 2
DEV := "pytest>=8,<10" "pytest-xdist>=3.6,<4" "playwright>=1.50,<2" "ruff>=0.15,<0.18" "axe-playwright-python>=0.1.8,<0.2"

.PHONY: app test lint clean

app: .venv/app
	$(BIN)/python -m razor app $(ARGS)

# Two workers of one thread each end sooner than one of two; tests/conftest.py says which tests stay together.
test: .venv/dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/app: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: Makefile .venv/app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(DEV)
	touch $@

clean:
	rm -rf .venv build .pytest_cache .ruff_cache
