# Sugar over the lines in README.md; every target can be run by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LEAN := $(VENV)/.ready-demo
STAMP := $(VENV)/.ready

.PHONY: help setup demo test gate lint wheel docs clean

help:
	@echo "make demo   set up, train three models, attack them, print the leaderboard: minutes"
	@echo "make test   set up and run the tests"
	@echo "make gate   attack the committed models on the committed images: as robust as the baseline?"
	@echo "make lint   ruff, mypy and the import contract"
	@echo "make wheel  build the wheel and try it in a bare environment"
	@echo "make docs   build the pages as one site in docs/_build, links checked"
	@echo "make clean  remove the environment and what was built (iqa-store/ stays)"

# One environment, filled twice: the demo does without what tests and lint need.
$(LEAN): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[demo]"
	@touch $(LEAN)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $(LEAN) $(STAMP)

setup: $(STAMP)

demo: $(LEAN)
	$(BIN)/iqa-harness demo

test: setup
	$(BIN)/pytest -n 2 --dist worksteal

# In a new store: cells found in an old one would hide what changed. OPTIONS="--chunk 3" and the like for once.
GATE := build/gate
BASELINE := results/baselines/demo
gate: setup
	rm -rf $(GATE)
	$(BIN)/iqa-harness attack --suite $(BASELINE)/suite.toml --run gate --store $(GATE) --quiet --tune off \
	  --workers 2 --threads 1 --model demo_srm=./$(BASELINE)/models/demo_srm \
	  --model demo_plain=./$(BASELINE)/models/demo_plain $(OPTIONS)
	$(BIN)/iqa-harness gate --baseline $(BASELINE) --run gate --store $(GATE) --tolerance 0.02 \
	  --markdown $(GATE)/gate.md --junit $(GATE)/gate.xml

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: setup
	$(BIN)/python tests/wheel_check.py

docs: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/sphinx-build -q -W --keep-going -c docs . docs/_build

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
