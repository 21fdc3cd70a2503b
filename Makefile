# What a person types: `make lab` opens the first notebook, `make test` runs every test.
# Both set up first, which takes a few minutes once and no time when nothing changed.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.labkit-ready
FIT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c '$(FIT)' 2>/dev/null && echo $$python && break; done)
FLAGS :=
TORCH ?=

.PHONY: help setup lab test bench notebooks docs slides assignments students grade named lint clean

help:
	@echo "make lab          open the course in JupyterLab"
	@echo "make test         run every test"
	@echo "make setup        what both do first: make $(VENV), install, fetch the real model"
	@echo "make bench        measure every way to decode on this machine"
	@echo "make notebooks    run the course without a browser, and say what is amiss"
	@echo "make docs         build the site, into build/site; runs notebooks that changed, on tiny"
	@echo "make slides       make the slides of two lectures, into build/slides"
	@echo "make assignments  make the students' copies, into build/release"
	@echo "make students     write the course for students, without solutions, into build/students"
	@echo "make grade        grade SUBMISSIONS=DIR, DIR/STUDENT/NAME/NAME.ipynb, into build/grades.csv"
	@echo "make lint         check style and types"
	@echo "make clean        remove $(VENV)"
	@echo "TORCH=cpu or TORCH=cuda chooses the build of torch when installing (see README.md)"
	@echo "FLAGS='...' is passed on to the program; PYTHON=... chooses the Python"

setup: $(READY)
	@$(BIN)/python -m labkit.cli fetch real >$(VENV)/.labkit-real-folder

# The stamp is touched last, so that an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(FIT)' 2>/dev/null || { echo "labkit: No Python of at least 3.11 was found:" \
	  "install one, or name it as in 'make setup PYTHON=/path/to/python3.12'." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "labkit: Python could not make" \
	  "$(VENV): on Debian and Ubuntu, install python3-venv." >&2; exit 2; }
	@echo "Installing into $(VENV): a few minutes, once ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]' \
	  $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH:cuda=cu130))
	@touch $@

lab: setup
	$(BIN)/python -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(FLAGS) \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

test: setup
	@$(BIN)/python -m labkit.cli doctor --tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(FLAGS)

bench: setup
	$(BIN)/python -m labkit.cli calibrate
	$(BIN)/python -m labkit.cli bench speculative $(FLAGS)

notebooks: setup
	$(BIN)/python -m labkit.cli notebooks $(FLAGS)

docs: setup
	$(BIN)/python -m docs.build --out build/site $(FLAGS)

slides: setup
	$(BIN)/python -m docs.slides --out build/slides $(FLAGS)

assignments: setup
	$(BIN)/python -m labkit.cli assignments $(FLAGS)

students: setup
	$(BIN)/python -m labkit.cli students $(FLAGS)

grade: named setup
	$(BIN)/python -m labkit.cli grade $(FLAGS) "$(SUBMISSIONS)"

named:
	@[ -n "$(SUBMISSIONS)" ] || { echo "labkit: No submissions were named: give their folder, as" \
	  "in 'make grade SUBMISSIONS=folder'." >&2; exit 2; }

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy labkit

clean:
	rm -rf $(VENV)
