# Cargo and Go run as the caller; what needs root (the lab, apt) asks sudo for it.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
export PATH := $(PATH):$(CURDIR)/e2e/tools/bin

CARGO ?= cargo
# Two runs of one commit try the same cases; `make explore` tries others.
SEED ?= 2026

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: lab-tools ## Watch the LVS course's clusters work, from kubectl apply to HTTP
	@echo "demo: building the workspace (minutes the first time)" >&2
	$(CARGO) build --locked --workspace --bins
	$(CARGO) run --locked --quiet --package e2e --bin demo

.PHONY: test
test: ## Everything that must hold: lints, unit tests, tests in the lab
	+@e2e/tools/timed tools test-build lab-tests beside unit lint

.PHONY: tools
tools: ## Install and build what the lab and the lints need; again: nothing to do
	@e2e/tools/install

.PHONY: lab-tools
lab-tools:
	@e2e/tools/install lab

.PHONY: build
build: ## Build the programs, optimised
	$(CARGO) build --locked --release --workspace --bins

.PHONY: images
images: ## Build the images without Docker, for amd64, into target/images
	@e2e/tools/images target/images amd64

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: lint
lint: ## Check format, lints, imports, licenses and dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) run --locked --quiet --package circles
	cargo-deny --log-level error check bans licenses sources

.PHONY: advisories
advisories: ## Check dependencies for known vulnerabilities (fetches the database from the internet)
	cargo-deny check advisories

.PHONY: unit
unit: ## Run the unit and property tests, and the checks of generated files
	LAB_TESTS=no PROPTEST_RNG_SEED=$(SEED) $(CARGO) test --locked --workspace

.PHONY: test-build
test-build:
	$(CARGO) test --locked --workspace --no-run
	$(CARGO) run --locked --quiet --bin lab -- tests --no-run

.PHONY: explore
explore: ## Run the property tests ten times, with other seeds each time
	@for round in 1 2 3 4 5 6 7 8 9 10; do \
		seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "explore: seed $$seed"; \
		$(MAKE) unit SEED=$$seed || exit 1; \
	done

.PHONY: lab-tests
lab-tests: ## Run the kernel and end-to-end tests, several labs at once (LAB_JOBS=1: one)
	$(CARGO) run --locked --quiet --bin lab -- tests

.PHONY: test-qemu
test-qemu: tools ## Run all of them on the second kernel: Debian's, with two processors, in QEMU
	LAB_KERNEL=qemu $(CARGO) run --locked --quiet --bin lab -- tests

.PHONY: bench
bench: ## Measure speed and cost, 25 minutes; BENCH=--check fails if one is short, BENCH=fleet: a fleet
	@e2e/tools/install bench
	@echo "bench: building the programs, optimised (minutes the first time)" >&2
	$(CARGO) build --locked --release --workspace --bins
	$(CARGO) run --locked --quiet --release --package bench -- $(BENCH)

.PHONY: generate
generate: ## Write the generated files: the chart's custom resource definitions and README
	$(CARGO) run --locked --package crds --bin crdgen
	$(CARGO) run --locked --package e2e --bin values-page

.PHONY: clean
clean: ## Remove what was built, the lab's tools included
	$(CARGO) clean
	rm -rf e2e/tools/bin
