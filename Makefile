# Everything a developer does, by name. `make demo` and `make test` set up what they need first.
PYTHON ?= python3
BIN := .venv/bin
SECONDS ?= 1800

.PHONY: help setup demo test soak fuzz check fix docs lock bench clean

help:            ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup:           ## install what is missing: Debian packages, then .venv
	@$(PYTHON) scripts/setup.py

demo: setup      ## the whole path, with refusals, in numbered steps
	@$(BIN)/python -m examples.demo

test: setup      ## every test that fits into 20 minutes
	@$(BIN)/python -m casemate.testing.programs
	@$(BIN)/python -m pytest -m "not soak"

soak: setup      ## the long tests; goes on where it stopped
	@$(BIN)/python -m casemate.testing.programs
	@$(BIN)/python scripts/soak.py

fuzz: setup      ## coverage-guided fuzzing of every parser; SECONDS=1800 for all of them together
	@nice -n 19 $(BIN)/python -m fuzz --seconds $(SECONDS)

check: setup     ## format, lint, types, walls, sizes, generated files
	@$(BIN)/python scripts/check.py

fix: setup       ## format and mend what can be mended by machine
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

docs: setup      ## write the generated reference pages
	@$(BIN)/python scripts/reference.py --write

lock: setup      ## resolve the Python packages anew and write requirements/
	@$(BIN)/python scripts/lock.py

bench: setup     ## phases of a start, as a table
	@$(BIN)/python -m bench

clean:           ## remove what was built here; caches elsewhere stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests examples scripts -name __pycache__ -type d -prune -exec rm -rf {} +
