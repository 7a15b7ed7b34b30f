# Every command a person needs. `make help` lists them.
#
# RocksDB is compiled once for a machine, into CACHE (.ci/rocksdb). Cargo's target folder lies there too, so that a second
# clone compiles no dependency again; and there is one profile (release) for run, test and e2e, beside that of what
# people run and what is measured (dist).
# `make setup` writes all this to .cargo/config.toml, so that a bare `cargo test --release` shares it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/god
export GOD_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
BUILT := $(CARGO_TARGET_DIR)/release
DIST := $(CARGO_TARGET_DIR)/dist

NODES ?= 3
DATA ?= data
# Debian's `unicode-data`: every character of Unicode with its name.
LOAD ?= /usr/share/unicode/UnicodeData.txt
SEEDS ?= 300
# Minutes of seeds that nobody has run: each commit has its own, so that the same one fails again.
FRESH_MINUTES ?= 4
FRESH_FROM ?= $(shell git log -1 --format=%ct000 2>/dev/null || date +%s000)
# A soak begins at a seed of its own each day, unless told where.
SOAK_SEEDS ?= 20000
FIRST ?= $(shell date +%Y%m%d)00000
# Minutes of faults on real processes, and of a soak.
CHAOS_MINUTES ?= 3
SOAK_MINUTES ?= 30
DURABILITY ?= interval
PREFIX ?= /usr/local
export PREFIX DESTDIR SYSCONFDIR

# Programs, from a folder, into another one.
define place
@mkdir -p $(3)
@for name in $(1); do ln -f $(2)/$$name $(3)/$$name 2>/dev/null || cp -f $(2)/$$name $(3)/$$name; done
endef

.PHONY: help
help: ## What there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  NODES=$(NODES) DATA=$(DATA) LOAD=$(LOAD) SEEDS=$(SEEDS) FRESH_MINUTES=$(FRESH_MINUTES) SOAK_SEEDS=$(SOAK_SEEDS) FIRST=$(FIRST) CHAOS_MINUTES=$(CHAOS_MINUTES) SOAK_MINUTES=$(SOAK_MINUTES) DURABILITY=$(DURABILITY) PREFIX=$(PREFIX) CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)"

.PHONY: setup
setup: ## Install what building needs (says what), compile RocksDB once for this machine
	@.ci/setup build

.PHONY: build
build: setup ## Build all programs, into bin/
	cargo build --release --locked --bins
	$(call place,god-node god god-operator god-e2e god-sim god-chaos,$(BUILT),bin)
	@cp -f operator/kubectl-god bin/kubectl-god

# Whoever comes to see what this is does not compile clients of Kubernetes first. (Which programs are built changes no
# crate's features, so that `make build` goes on from there.)
.PHONY: programs
programs: setup ## Build bin/god-node and bin/god, all that a cluster on this machine takes
	cargo build --release --locked --bin god-node --bin god
	$(call place,god-node god,$(BUILT),bin)

.PHONY: dist
dist: setup ## Build the programs as people run them, into bin/dist/: optimised as a whole, symbols in the target folder's dist/ (*.dwp)
	cargo build --profile dist --locked --package god-node --package god-operator --package god-command --bins
	$(call place,god-node god god-operator,$(DIST),bin/dist)
	@cp -f operator/kubectl-god bin/dist/kubectl-god

.PHONY: run
run: programs ## Start three nodes, load real data, print a tour; Ctrl-C stops them
	@.ci/setup data
	@bin/god dev --nodes $(NODES) --data $(DATA) --durability $(DURABILITY) --load $(LOAD)

.PHONY: test
# Properties are tried with the same cases each time here; `cargo test` alone tries others each time.
test: export PROPTEST_RNG_SEED ?= 20261124
# Tests of processes wait most of the time; how many of them run at once they bound themselves.
test: export RUST_TEST_THREADS ?= 6
test: build ## All that is tested, but what is drawn anew each time (`make unseen`) and Kubernetes
	.ci/setup test
	.ci/fresh setup
	cargo fmt --all --check
	.ci/tidy
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo test --release --locked --workspace
	.ci/install test
	.ci/beside '$(MAKE) --no-print-directory sim' '$(MAKE) --no-print-directory -j1 models deny fuzz'

# Crates that link C++, and so wait for RocksDB.
NATIVE := god-rocks god-node

.PHONY: check
check: export PROPTEST_RNG_SEED ?= 20261124
check: ## Between edits: format, tidy, clippy, and the tests of all that links no C++
	cargo fmt --all --check
	.ci/tidy
	cargo clippy --release --locked --workspace $(NATIVE:%=--exclude %) --all-targets -- -D warnings
	cargo test --release --locked --workspace $(NATIVE:%=--exclude %)

.PHONY: loop
loop: setup ## How long from an edit until it is tested, simulated, running
	@.ci/loop

.PHONY: sim
sim: build ## Simulated clusters under faults, each repeatable: those that once failed, and SEEDS others
	$(BUILT)/god-sim run --known sim/seeds.txt --seeds $(SEEDS)

.PHONY: unseen
# One after the other: what nodes may take of memory is judged while nothing else takes their processors.
unseen: chaos ## What nobody has tried: CHAOS_MINUTES of faults on real processes, FRESH_MINUTES of simulated clusters
	$(BUILT)/god-sim run --seeds 0 --fresh $(FRESH_MINUTES) --fresh-from $(FRESH_FROM)

.PHONY: chaos
# `.ci/chaos` says where it cannot run, and fails then where CI=true.
chaos: build ## Real processes under faults for CHAOS_MINUTES, by a plan whose seed is printed (CHAOS_SEED)
	@GOD_PROGRAMS=$(BUILT) .ci/chaos $(CHAOS_MINUTES) $(CHAOS_SEED:%=--seed %)

.PHONY: soak
soak: build ## What CI has not seen: real processes under faults for SOAK_MINUTES, SOAK_SEEDS simulated clusters from FIRST
	@GOD_PROGRAMS=$(BUILT) .ci/chaos $(SOAK_MINUTES) $(CHAOS_SEED:%=--seed %)
	$(BUILT)/god-sim run --seeds $(SOAK_SEEDS) --from $(FIRST)

.PHONY: models
models: ## Visit every state of the protocols' models, as they are and with each rule broken
	cd sim/models && cargo fmt --check && cargo test --release --locked --quiet

.PHONY: deny
deny: ## Licences and sources of all dependencies
	@.ci/setup deny
	cargo deny --locked check licenses bans sources
	cargo deny --locked --manifest-path sim/models/Cargo.toml --config deny.toml check licenses bans sources

.PHONY: advisories
advisories: ## Known vulnerabilities of dependencies (needs to reach the advisory database)
	@.ci/setup deny
	cargo deny --locked check advisories

.PHONY: fuzz
fuzz: ## A short run of the fuzz targets over their corpus
	@.ci/fuzz $(FUZZ_SECONDS)

.PHONY: e2e
# `.ci/e2e` says where it cannot run, and fails then where CI=true. E2E_KUBECONFIG names another Kubernetes.
e2e: build ## The core of the scenarios, on a Kubernetes that is started for it
	@GOD_PROGRAMS=$(BUILT) .ci/e2e core

.PHONY: e2e-all
e2e-all: build ## All scenarios on Kubernetes, or SCENARIOS of them
	@GOD_PROGRAMS=$(BUILT) .ci/e2e $(or $(SCENARIOS),all)

.PHONY: run-k8s
run-k8s: build ## Start a Kubernetes, install the chart, three nodes and data; `.ci/kubernetes down` ends it
	@GOD_PROGRAMS=$(BUILT) .ci/e2e run

.PHONY: image
image: dist ## Build the image of nodes and operator, print the archive that holds it; beside it what it is made of (SBOM)
	@.ci/image $(DIST)

.PHONY: bench
bench: dist ## Storage against raw RocksDB, then a three-node cluster, as ratios
	@GOD_PROGRAMS=$(DIST) .ci/bench

.PHONY: bench-ring
bench-ring: dist ## Changes of the ring: under load, beside a file copy, and what comparing copies costs
	@GOD_PROGRAMS=$(DIST) .ci/bench-ring $(PARTS)

.PHONY: bench-operator
bench-operator: build ## The operator with 100 clusters whose nodes are stand-ins: time, memory, requests (OPTIONS=)
	@GOD_PROGRAMS=$(BUILT) .ci/bench-operator $(OPTIONS)

.PHONY: install
# PREFIX=/usr/local; DESTDIR= and SYSCONFDIR= for who makes packages.
install: ## Install what `make dist` built into PREFIX, with manual pages, completions, a unit for systemd, sample settings
	@.ci/install to

.PHONY: fresh
fresh: ## Build a clean clone in a minimal Debian that has git, make and Rust, and nothing else
	@.ci/fresh build

.PHONY: fmt
fmt: ## Format all code
	cargo fmt --all

.PHONY: clean
clean: ## Remove bin and the data of `make run`; build caches stay
	rm -rf bin $(DATA)
