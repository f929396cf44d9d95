# `make` lists the targets. Each one first installs what it needs (scripts/prepare); nothing has to be set up by hand.
SHELL := /bin/bash
BIN := .venv/bin
PYTHON := $(BIN)/python

# What the reader may set
JSON :=
ONLY :=
ROUNDS := 100
SEED :=
GUESTS :=
ENGINE := $(shell command -v podman || command -v docker)
BASE := docker.io/library/debian:trixie-slim
IMAGE := stillpoint

.DEFAULT_GOAL := help
.PHONY: help ready demo test debian13 static check lab lab-down chaos bench lock image clean

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:[^#]*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

ready:
	@scripts/prepare

demo: ready ## freeze, back up, lose and restore a real guest, and show the evidence; JSON=FILE keeps the job of the snapshot
	@$(PYTHON) -m demo $(if $(JSON),--json "$(JSON)")

test: ready ## every test, real guests included; ONLY=PATH or ONLY=MARKER for some, GUESTS=only or without for those with or without them
	@$(if $(ONLY),$(PYTHON) -m pytest $(if $(wildcard $(firstword $(subst ::, ,$(ONLY)))),"$(ONLY)",-m "$(ONLY)"),scripts/tests $(GUESTS))

debian13: ## the demo and every test with a real guest in a root with Debian 13 (libvirt 11.3, QEMU 10.0); ONLY=PATH for some tests
	@$(if $(ONLY),,scripts/debian13 $(PYTHON) -m demo)
	@$(if $(ONLY),scripts/debian13 $(PYTHON) -m pytest "$(ONLY)",scripts/debian13-tests)

static: ready ## lint, format, types and import contracts, without running anything
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: static ## everything that CI checks: static, then test (which also finds a migration that is missing)
	@$(MAKE) --no-print-directory test

lab: ready ## start a lab guest for hand work, leave it running, and say how to reach it
	@$(PYTHON) -m tests.lab up

lab-down: ready ## remove the lab guest, and the libvirt daemon if the lab started it
	@$(PYTHON) -m tests.lab down

chaos: ready ## faults of every kind against real guests, one a round, then one line of JSON; ROUNDS=N, and SEED=S to play the same rounds again
	@$(PYTHON) -m tests.chaos --rounds "$(ROUNDS)" $(if $(SEED),--seed "$(SEED)")

bench: ## benchmarks beside their peers, results in build/bench/; ONLY=stall, api, list, pickup, windows, guard, flood, ageing, backup, policies or create, with commas, for some
	@scripts/prepare bench
	@$(PYTHON) -m benchmarks $(if $(ONLY),--only "$(ONLY)")

lock: ready ## compile requirements/*.txt anew from pyproject.toml
	@scripts/lock

image: ## build the container image; ENGINE=podman or docker, BASE=another Debian with Python 3.11 or newer
	@test -n "$(ENGINE)" || { echo "Install podman or docker first, or say ENGINE=..." >&2; exit 1; }
	$(ENGINE) build --build-arg BASE="$(BASE)" --tag "$(IMAGE)" .

clean: ## remove the lab, .venv and everything that was built
	@test ! -e build/lab/up.json || $(MAKE) --no-print-directory lab-down
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
