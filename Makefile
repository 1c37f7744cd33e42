# make repro | test | test-all | docs | format | charts | lock | check-lock, and aliases of `anklealign`
# commands: add | serve | export | compare | report | pr-report | check | sync-deps.
# Everything installs into .venv. PYTHON chooses the interpreter, CPU=1 the small install without
# CUDA.
PYTHON ?= python3
BIN := .venv/bin
# DVC starts the stages' `python` from PATH; libraries must find this project's venv there.
export PATH := $(CURDIR)/$(BIN):$(PATH)
ANKLEALIGN := python -m anklealign

.PHONY: repro add serve export test test-all compare report pr-report check sync-deps check-lock \
	docs lock format charts

repro: .venv/repro
	$(ANKLEALIGN) run

# make add DATA=FOLDER|ARCHIVE|ADDRESS NAME=name [LAYOUT=folders|label_studio|table|file_names] [DRY=1] [ALL=1]
# The shell reads DATA from the environment, where make exports it, so that spaces and quotes
# survive; $(value) keeps a dollar sign, which make would expand.
override DATA := $(value DATA)
export DATA
add: .venv/repro
	@test -n "$$DATA" -a -n "$$NAME" || { \
		echo "make add DATA=FOLDER NAME=name [LAYOUT=layout] [SET=key=value] [DRY=1] [ALL=1] [STRIP=1]"; exit 2; }
	@$(ANKLEALIGN) add $(if $(LAYOUT),--layout "$$LAYOUT") $(if $(SET),--set "$$SET") \
		$(if $(filter-out 0,$(DRY)),--dry-run) $(if $(filter-out 0,$(ALL)),--verbose) \
		$(if $(filter-out 0,$(STRIP)),--strip-metadata) -- "$$DATA" "$$NAME"

compare report check sync-deps: .venv/repro
	@$(ANKLEALIGN) $@

# What a pull request against BASE changes, as report/report.md with its pictures.
pr-report: .venv/repro
	@$(ANKLEALIGN) pr-report $(or $(BASE),main)

export: .venv/serve
	@$(ANKLEALIGN) export

# exec: a signal to make's child is a signal to the service.
serve: .venv/serve
	@exec $(ANKLEALIGN) serve

# dvc.lock was committed with the code. DVC's exit status is 0 either way, so its text is tested.
check-lock: .venv/repro
	@output=$$(dvc repro --dry --allow-missing 2>&1); echo "$$output" | tail -n 8; \
	echo "$$output" | grep -q "Data and pipelines are up to date" || { \
	echo "dvc.lock is stale: run 'make repro' and commit dvc.lock, metrics and plots" >&2; exit 1; }

# Each process holds PyTorch (some 1 GB), so their number is bounded. Slow tests and those of times
# run alone.
test: .venv/dev lint
	pytest -m "not slow and not timing" --numprocesses logical --maxprocesses 4
	pytest -m "timing and not slow"

test-all: test
	pytest -m slow

.PHONY: lint
lint: .venv/dev
	ruff check .
	ruff format --check .
	lint-imports
	mypy

format: .venv/dev
	ruff check --fix .
	ruff format .

# The reference pages from the code, and the site, as site/index.html. Loads nothing from the network.
docs: .venv/dev
	python -m docs.reference
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# The chart library of plots/report.html, from the versions in .ci/charts/package-lock.json. Needs npm.
charts:
	npm ci --silent --no-fund --no-audit --prefix .ci/charts
	node .ci/charts/build.mjs
	cd anklealign/reporting/assets && sha256sum --check ../../../.ci/charts/SHA256SUMS

# Exact versions and hashes of everything that requirements*.txt install, for every platform and
# Python 3.11 or newer.
lock: .venv/dev
	@{ echo "# Exact versions and hashes of everything that requirements*.txt install, for Python 3.11 and newer."; \
	echo "# Do not edit: \`make lock\` writes it."; \
	uv pip compile requirements.txt requirements-serve.txt requirements-dev.txt \
		--universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

# --- Installation -------------------------------------------------------------------------------

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# pip takes hashes for all packages or for none, and requirements.txt has none.
.venv/constraints.txt: requirements.lock | .venv/bin/python
	sed -e '/^ *--hash=/d' -e 's/ *\\$$//' requirements.lock > $@

UV := $(shell PATH="$(PATH)" command -v uv)
ifneq ($(filter-out 0,$(CPU)),)
# Not run by the maintainers' tests: the CPU wheels are on PyTorch's own index, which uv knows. They
# have other hashes, so only the versions in requirements*.txt are fixed.
SIZE := PyTorch for CPUs, without the 2 GB of CUDA libraries
INSTALL = $(or $(UV),$(error CPU=1 needs uv: pip install uv)) pip install --quiet \
	--python $(BIN)/python --torch-backend cpu
else
SIZE := about 2.7 GB (6 GB on disk), 4 minutes with pip or 1 with uv; without an NVIDIA GPU use CPU=1
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python --constraint requirements.lock,\
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .venv/constraints.txt)
endif

# $(call install,REQUIREMENTS): install them, and the `anklealign` command from this checkout.
define install
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' || echo "Download: $(SIZE)."
	$(INSTALL) $(1)
	$(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet \
		--disable-pip-version-check) --no-deps --editable .
endef

# Stamps: an install runs again only when its requirements changed.
.venv/repro: requirements.txt requirements.lock .venv/constraints.txt | .venv/bin/python
	$(call install,-r requirements.txt)
	touch $@

.venv/serve: requirements-serve.txt requirements.txt requirements.lock .venv/constraints.txt | .venv/bin/python
	$(call install,-r requirements.txt -r requirements-serve.txt)
	touch $@ .venv/repro

.venv/dev: requirements-dev.txt requirements-serve.txt requirements.txt requirements.lock .venv/constraints.txt | .venv/bin/python
	$(call install,-r requirements-dev.txt)
	touch $@ .venv/repro .venv/serve
