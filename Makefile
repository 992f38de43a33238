# What to run: `make demo` for a first look, `make test` for all tests.
# `make help` lists the rest.
SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin
export CGO_ENABLED ?= 0
export GOTOOLCHAIN ?= auto
GO ?= go

VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
SOURCES := $(shell find cmd internal -name '*.go' -not -name '*_test.go') go.mod go.sum
AGENT_BLOB := internal/local/image/agent.gz
# Further architectures whose agents `mirrord agent image --push` is to have, from
# a clean tree: make clean build AGENT_ALSO=arm64
AGENT_ALSO ?=
COUNTS := bin/test-counts

.PHONY: help build demo test unit e2e chaos bench fuzz vsix unit-vscode e2e-vscode package vm-test lint clean setup
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: bin/mirrord ## bin/mirrord and bin/mirrord-agent

bin/mirrord-agent: $(SOURCES)
	@test/setup build
	@mkdir -p bin
	@echo 'building the agent, then mirrord: about a minute the first time, after the downloads'
	GOOS=linux $(BUILD) -o $@ ./cmd/mirrord-agent

$(AGENT_BLOB): bin/mirrord-agent
	@gzip -n -9 -c $< >$@.tmp && mv $@.tmp $@
	@sha256sum $< | cut -c1-64 >$(AGENT_BLOB:.gz=.sha256)
	@rm -f $(AGENT_BLOB:.gz=.*.gz)
	@set -e; for arch in $(filter-out $(shell $(GO) env GOARCH),$(AGENT_ALSO)); do \
		GOOS=linux GOARCH=$$arch $(BUILD) -o bin/mirrord-agent-$$arch ./cmd/mirrord-agent; \
		gzip -n -9 -c bin/mirrord-agent-$$arch >$(AGENT_BLOB:.gz=).$$arch.gz; done

bin/mirrord: $(SOURCES) $(AGENT_BLOB)
	$(BUILD) -o $@ ./cmd/mirrord

# For other systems, with the agent of Linux inside: make bin/darwin/mirrord GOARCH=arm64
bin/linux/mirrord bin/darwin/mirrord bin/windows/mirrord.exe: $(SOURCES) $(AGENT_BLOB)
	GOOS=$(notdir $(@D)) $(BUILD) -o $@ ./cmd/mirrord

demo: build ## a first session, against a small pod made on this machine
	@test/setup demo
	bin/mirrord demo

test: build ## everything: unit, integration, end-to-end on a real cluster
	@test/setup build test
	@rm -f $(COUNTS)
	@failed=0; $(MAKE) --no-print-directory lint || failed=1; \
	$(MAKE) --no-print-directory unit-vscode || failed=1; \
	$(MAKE) --no-print-directory unit || failed=1; \
	$(MAKE) --no-print-directory e2e || failed=1; \
	bin/summary -counts $(COUNTS) || failed=1; exit $$failed

bin/summary: test/summary/main.go
	@mkdir -p bin
	@$(GO) build -o $@ ./test/summary

unit: bin/summary build ## unit and integration tests, with the race detector
	@test/setup build test
	CGO_ENABLED=1 GORACE=atexit_sleep_ms=100 bin/summary -counts $(COUNTS) -- $(GO) test -race -json -timeout 20m ./cmd/... ./internal/... ./test/summary ./test/bench/... ./test/packages

e2e: bin/summary build ## end-to-end tests on the cluster that cluster-up makes
	@test/setup build test
	@bin/summary -counts $(COUNTS) -- $(GO) test -json -timeout 60m -count 1 ./test/e2e

# PART=long is the tests that mostly wait, PART=rest the others: side by side, in a
# checkout and on a cluster each, they take half the time of all in turn.
CHAOS_LONG := ^(TestChaosSoak|TestIdleConnection)$$
CHAOS := ^(TestChaos|TestHandback|TestManyConnections|TestIdleConnection)

chaos: bin/summary build ## links cut and parts killed, on the cluster; use one of your own (CLUSTER_ID=... PART=long|rest)
	@test/setup build test
	@rm -f bin/chaos-counts
	@failed=0; MIRRORD_CHAOS=whole bin/summary -counts bin/chaos-counts -- $(GO) test -json -timeout 150m -count 1 \
		-run '$(if $(filter long,$(PART)),$(CHAOS_LONG),$(CHAOS))' $(if $(filter rest,$(PART)),-skip '$(CHAOS_LONG)') ./test/e2e || failed=1; \
	bin/summary -counts bin/chaos-counts || failed=1; exit $$failed

bench: build ## figures against what one would use otherwise (ROWS=start,files/walk BENCH_PAIRS=9), on the same cluster
	@test/setup build test bench
	@$(GO) build -o bin/bench ./test/bench
	@bin/bench -rows '$(ROWS)' $(addprefix -pairs ,$(BENCH_PAIRS)) -out bench/latest.json

fuzz: bin/mirrord ## every parser of outside bytes, for FUZZTIME=10s each
	@test/fuzz

vsix: build editors/vscode/node_modules ## the VS Code extension, with this machine's program inside, in dist/
	@cd editors/vscode && npm run --silent compile && ./build -p linux-$(subst amd64,x64,$(shell $(GO) env GOARCH))

editors/vscode/node_modules: editors/vscode/package-lock.json
	@test/setup test
	@cd editors/vscode && npm ci --silent --no-audit --no-fund && touch node_modules

unit-vscode: editors/vscode/node_modules ## the extension's unit tests
	@cd editors/vscode && npm run --silent compile && npm test

e2e-vscode: build ## the extension in a real VS Code and a browser, on the cluster (NAME=part of a test's name)
	@editors/vscode/e2e/run $(NAME)

package: build ## .deb, .rpm, archives for Linux, macOS and Windows, in dist/ (VERSION=1.2.3)
	packaging/build $(VERSION)

vm-test: build ## in whole machines of other distributions (VM=path/to/vm, see test/vm/README.md)
	VM='$(VM)' test/vm/run $(MACHINES)

lint: ## formatting, vet, go.mod
	@test -z "$$(gofmt -l cmd internal test | tee /dev/stderr)" || { echo "lint: gofmt -w these files"; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

clean: ## remove what was built
	rm -rf bin $(AGENT_BLOB) $(AGENT_BLOB:.gz=.sha256) $(AGENT_BLOB:.gz=.*.gz)

-include test/cluster/cluster.mk
