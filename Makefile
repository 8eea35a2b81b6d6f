# make book: everything, from a fresh clone to the rendered book. See README.md.
PYTHON ?= python3
STUDY ?= demo
PORT ?= 8000
# make book DATA=/path/to/data: folder of downloaded data (alice-small); the same as PHASELAB_DATA.
DATA ?= $(PHASELAB_DATA)
BIN := .venv/bin
READY := .venv/.ready
# pip would compile modules one by one, which takes as long as the rest: that is done at once, on all cores.
INSTALL := --quiet --disable-pip-version-check --no-compile -c constraints.txt
export PHASELAB_DATA := $(DATA)

.PHONY: book student slides picture publish-demo setup test faults slurm wheel test-browser lint serve clean help

book: $(READY)  ## compute what is missing and build the book
	$(BIN)/phaselab book $(STUDY)

student: $(READY)  ## the same without the solutions of exercises
	$(BIN)/phaselab book $(STUDY) --student

slides: $(READY)  ## slides of the sessions, from the built book, in _build/slides
	rm -rf _build/slides
	$(BIN)/python book/_ext/slides.py _build/html _build/slides

picture: $(READY)  ## the picture of README, from published/alice
	$(BIN)/python book/_ext/picture.py book/assets/readme.png

publish-demo: $(READY)  ## published/demo, from results of the demo, with what clean notebooks need
	$(BIN)/python book/_ext/sample.py published

setup: $(READY)  ## the environment alone, in .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), expected Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { echo "make: could not make .venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install $(INSTALL) "setuptools>=77.0.3" torch
	$(BIN)/python -m pip install $(INSTALL) -e ".[dev]"
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # some are not to be imported
	@touch $(READY)

test: $(READY)  ## unit tests; browser tests too once the book is built and Chromium is there
	$(BIN)/python -m pytest -n 2

COUNT ?= 200
faults: $(READY)  ## kills, damage, several runs at once: after a rerun results are as if nothing had been (COUNT=200)
	PYTHONPATH=tests $(BIN)/python tests/faults.py --count $(COUNT)
	PYTHONPATH=tests $(BIN)/python tests/faults_book.py --count $$(( $(COUNT) / 2 ))

wheel: $(READY)  ## the wheel alone, in _build/wheel: it builds the book, whose clean notebooks run in an empty folder
	rm -rf _build/wheel
	$(BIN)/python tests/wheel.py _build/wheel results

slurm: $(READY)  ## a study on a real SLURM on this machine, with kills: the same results (as root; says what it lacks)
	$(BIN)/python tests/slurm/check.py

test-browser: $(READY)  ## the built book in a real browser (needs Chromium)
	PHASELAB_REQUIRE_BROWSER=1 $(BIN)/python -m pytest -m browser tests/browser

# ruff reads what jupytext hands it of each notebook.
PIPE := $(BIN)/jupytext --quiet --check
CELLS := --config notebooks/ruff.toml -

lint: $(READY)  ## style, types, layers of imports, unused dependencies; code cells of the notebooks too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PIPE) '$(BIN)/ruff check --quiet $(CELLS)' notebooks/*.md
	$(PIPE) '$(BIN)/ruff format --quiet --check $(CELLS)' notebooks/*.md notebooks/starters/*.md
	$(PIPE) '$(BIN)/ruff check --quiet --ignore F401,I001 $(CELLS)' notebooks/starters/*.md
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry src book/_ext

serve: $(READY)  ## show the built book at http://127.0.0.1:$(PORT)
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

clean:  ## remove the built book and all results; the environment stays
	rm -rf _build book/executed book/starters results

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16
