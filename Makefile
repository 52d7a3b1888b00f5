# make app   create the environment, install, start the page on the bundled models
# make test  lint and run every test (library, panels, browser)

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: app test lint clean

app: .venv/app
	$(BIN)/python -m razor app $(ARGS)

test: .venv/dev lint
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/app: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: requirements-dev.txt .venv/app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv build .pytest_cache .ruff_cache
