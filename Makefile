# make repro | add | serve | export | compare | report | check-lock | test | test-all.
# Everything installs into .venv; PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
# DVC starts the stages' `python` from PATH; libraries must find this project's venv there.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro add serve export test test-all compare report check-lock format

repro: .venv/repro
	python -m anklealign.config.params
	dvc repro
	python -m anklealign.cli.summary

# make add DATA=FOLDER NAME=name [LAYOUT=folders|label_studio|table] [DRY=1] [ALL=1]
# The shell takes DATA from the environment, where make puts it, so that spaces and quotes survive;
# by value also a dollar, which make would take for a variable of its own.
override DATA := $(value DATA)
export DATA
add: .venv/repro
	@test -n "$$DATA" -a -n "$$NAME" || { \
		echo "make add DATA=FOLDER NAME=name [LAYOUT=folders|label_studio|table] [DRY=1] [ALL=1]"; exit 2; }
	@python -m anklealign.cli.add $(if $(LAYOUT),--layout "$$LAYOUT") \
		$(if $(filter-out 0,$(DRY)),--dry-run) $(if $(filter-out 0,$(ALL)),--all) -- "$$DATA" "$$NAME"

compare: .venv/repro
	python -m anklealign.experiments.runs

# What a pull request against BASE changes, as report/report.md with its pictures.
report: .venv/repro
	python -m anklealign.experiments.pull_request $(or $(BASE),main)

# dvc.lock was committed with the code. DVC's exit status is 0 either way: its text tells.
check-lock: .venv/repro
	@said=$$(dvc repro --dry --allow-missing 2>&1); echo "$$said" | tail -n 8; \
	echo "$$said" | grep -q "Data and pipelines are up to date" || { \
	echo "dvc.lock is stale: run 'make repro' and commit dvc.lock, metrics and plots" >&2; exit 1; }

test: .venv/dev
	ruff check .
	ruff format --check .
	lint-imports
	mypy
	pytest -m "not slow"

test-all: .venv/dev
	ruff check .
	ruff format --check .
	lint-imports
	mypy
	pytest

# exec: a signal to make's child is a signal to the service.
serve: .venv/serve
	@exec python -m service

export: .venv/serve
	python -m anklealign.cli.export

format: .venv/dev
	ruff check --fix .
	ruff format .

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# Stamps: an install runs again only when its requirements changed.
.venv/repro: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/serve: requirements-serve.txt requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-serve.txt
	touch $@ .venv/repro

.venv/dev: requirements-dev.txt requirements-serve.txt requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ .venv/repro .venv/serve
