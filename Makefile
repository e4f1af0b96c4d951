# `make test` and `make demo` need nothing but Python: they make their own environment first, once.

# The first that runs: a version manager's shim may be on the path without the Python that it stands for
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c "" 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# The package alone, which is enough for the demo; and everything
INSTALLED := .venv/.installed
READY := .venv/.ready
TYPED := sb3_distill sb3_distill_zoo.py setup.py $(wildcard benchmarks/*.py)

.PHONY: test test-ci test-slow lint types format docs demo clean

# Files in their order: those with few tests, which xdist would leave to the end, are among the longest
test: lint types
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not ci and not slow"

test-ci: test
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "ci and not slow"

test-slow: $(READY)
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy $(TYPED)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Strict: a link inside that leads nowhere is an error
docs: $(READY)
	$(BIN)/python docs/notebook.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

$(INSTALLED): setup.cfg setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

$(READY): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt -e ".[box2d,dev,docs,export,minari,minatar,mujoco,plots,ray,visualize]"
	touch $@

clean:
	rm -rf build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +
