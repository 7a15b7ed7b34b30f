# Every command a person needs. `make help` lists them.
#
# Cargo's target folder lies outside the clone, so that RocksDB is compiled once for a machine and not once for
# a clone; and there is one profile (release) for run, test, bench and e2e, so that it is compiled just once at all.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/god
export CARGO_TARGET_DIR ?= $(CACHE)/target
BUILT := $(CARGO_TARGET_DIR)/release

NODES ?= 3
DATA ?= data
# Debian's `unicode-data`: every character of Unicode with its name.
LOAD ?= /usr/share/unicode/UnicodeData.txt
SEEDS ?= 200
DURABILITY ?= interval

.PHONY: help
help: ## What there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  NODES=$(NODES) DATA=$(DATA) LOAD=$(LOAD) SEEDS=$(SEEDS) DURABILITY=$(DURABILITY) CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)"

.PHONY: setup
setup: ## Install the system packages that building needs (says which)
	@.ci/setup build

.PHONY: build
build: setup ## Build bin/god-node, bin/god and bin/god-operator
	cargo build --release --locked --bins
	@mkdir -p bin
	@for name in god-node god god-operator; do ln -f $(BUILT)/$$name bin/$$name 2>/dev/null || cp -f $(BUILT)/$$name bin/$$name; done

.PHONY: run
run: build ## Start three nodes, load real data, print a tour; Ctrl-C stops them
	@.ci/setup data
	@bin/god dev --nodes $(NODES) --data $(DATA) --durability $(DURABILITY) --load $(LOAD)

.PHONY: test
test: build ## All that CI runs, except Kubernetes
	.ci/setup test
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo test --release --locked --workspace
	$(MAKE) --no-print-directory sim
	$(MAKE) --no-print-directory deny
	$(MAKE) --no-print-directory fuzz

.PHONY: sim
sim: build ## Simulated clusters under faults: SEEDS of them, each repeatable
	$(BUILT)/god-sim run --seeds $(SEEDS)

.PHONY: deny
deny: ## Licences and sources of all dependencies
	@.ci/setup deny
	cargo deny --locked check licenses bans sources

.PHONY: advisories
advisories: ## Known vulnerabilities of dependencies (needs to reach the advisory database)
	@.ci/setup deny
	cargo deny --locked check advisories

.PHONY: fuzz
fuzz: ## A short run of the fuzz targets over their corpus
	@.ci/fuzz $(FUZZ_SECONDS)

.PHONY: e2e
e2e: ## Scenarios on Kubernetes
	@echo "There are no Kubernetes scenarios yet: the operator does not run clusters (docs/ARCHITECTURE.md)."

.PHONY: bench
bench: build ## Storage against raw RocksDB, then a three-node cluster, as ratios
	.ci/bench

.PHONY: fmt
fmt: ## Format all code
	cargo fmt --all

.PHONY: clean
clean: ## Remove bin and the data of `make run`; build caches stay
	rm -rf bin $(DATA)
