# make app   create the environment, install, start the page on the bundled models
# make test  lint and run every test (library, panels, browser)

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
DEV := "pytest>=8,<10" "playwright>=1.50,<2" "ruff>=0.15,<0.18" "axe-playwright-python>=0.1.8,<0.2" "peft>=0.17,<1"

.PHONY: app test test-library test-browser lint clean

app: .venv/app
	$(BIN)/python -m razor app $(ARGS)

# Side by side on one thread each they end sooner than one after the other; ARGS chooses tests instead.
test: .venv/dev lint
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(MAKE) --jobs 2 test-library test-browser)

test-library:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/browser --ignore tests/test_processes.py

# The tests of several processes go along, so that both jobs end at about the same time.
test-browser:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser tests/test_processes.py

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
