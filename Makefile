# `make help` lists the targets. What they do is done by Go programs: runsc-integration and go test.

PLATFORM ?= systrap
CMD ?=
# As it was given, and through the environment: neither make nor the shell here takes the command apart.
override CMD := $(value CMD)
export CMD

GO ?= go
WANTED := $(shell sed -n 's/^go //p' go.mod)
TOOL := build/runsc-integration
# The suites themselves are run by the runner, natively too.
TESTED := ./pkg/... ./tools/... ./test/syscalls/kit ./test/syscalls/runner ./test/syscalls/compare/... ./test/bench/...
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test build check syscalls compare bench bazel clean tool

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

run: tool ## run a container: its threads replace mappings while others read them. PLATFORM=ptrace, CMD='python3 -V'
	@$(TOOL) run -platform="$(PLATFORM)" $(if $(CMD),-- /bin/sh -c "$$CMD")

test: tool ## gofmt, vet, unit tests, race tests, programs in containers on systrap and ptrace, suites, a short comparison
	@$(TOOL) install
	@unformatted=$$(gofmt -l pkg runsc-integration test tools); \
	  [ -z "$$unformatted" ] || { echo "make: not formatted, run gofmt -w on them:" $$unformatted >&2; exit 1; }
	$(GO) vet ./...
	$(GO) test $(TESTED)
	$(GO) test -race -timeout=20m ./pkg/...
	$(GO) test -tags mmvalidate ./pkg/mm
	$(GO) test -tags mmtimes -run FaultTimes ./pkg/mm
	@$(TOOL) check
	@$(MAKE) --no-print-directory syscalls ARGS=
	@$(MAKE) --no-print-directory compare ARGS='-seed 1 -programs 40'
	@$(MAKE) --no-print-directory compare ARGS='-replay test/syscalls/compare/testdata/*.txt'

build: tool ## build build/runsc: gVisor's, with pkg/mm in place of its memory manager
	@$(TOOL) build

check: tool ## the container part of `make test` alone
	@$(TOOL) check

syscalls: tool ## suites of system calls: natively, on systrap, ptrace and kvm, and with mmvalidate. ARGS='-suites mmap -v'
	@$(TOOL) build
	@$(TOOL) build -tags mmvalidate
	@$(GO) build -o build/runner ./test/syscalls/runner
	@build/runner $(ARGS)

compare: tool ## random programs of memory calls, natively and sandboxed, compared step by step. ARGS='-for 1h -platform ptrace'
	@$(TOOL) build
	@$(GO) build -o build/compare ./test/syscalls/compare
	@build/compare $(ARGS)

bench: tool ## measure memory calls under our runsc, a stock one and natively; build/bench/report.html. ARGS='-quick'
	@$(TOOL) build
	@$(TOOL) build -stock
	@$(TOOL) build -tags mmtimes
	@CGO_ENABLED=0 $(GO) build -o build/bench/load ./test/bench/load
	@$(GO) build -o build/bench/bench ./test/bench
	@build/bench/bench $(ARGS)

bazel: ## the tests by way of Bazel: only what a change affects is run again
	@bazel test //...

clean: ## remove what was built
	rm -rf build

# A missing or an old Go is the one thing that a Go program cannot report.
tool:
	@command -v "$(GO)" >/dev/null || { echo "make: no Go on the PATH: install Go $(WANTED) or newer, https://go.dev/dl" >&2; exit 1; }
	@have=$$($(GO) env GOVERSION | sed 's/^go//;s/[ -].*//'); \
	  [ "$$(printf '%s\n' "$(WANTED)" "$$have" | sort -V | head -n 1)" = "$(WANTED)" ] || \
	  { echo "make: Go is $${have:-of no known version}, too old: install Go $(WANTED) or newer, https://go.dev/dl" >&2; exit 1; }
	@$(GO) build -buildvcs=false -o $(TOOL) ./runsc-integration
