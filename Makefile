# Lanyard's targets. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test test-unit lint build bench bench-issuer bench-agent interop guards soak generate clean

GO    ?= go
# Without gRPC's tracing, which is off, the linker can drop what only its web pages would call.
export GOFLAGS := -tags=grpcnotrace $(GOFLAGS)
TOOLS := .tools
ENVOY := $(TOOLS)/envoy-1.40.0/envoy

help: ## list the targets
	@awk -F ' ## ' '/^[a-z-]+:.* ## /{sub(/:.*/, "", $$1); gsub(/[$$]+/, "$$", $$2); printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## the whole path on real programs, in about a minute; DEMO_BREAK=policy|rotation|issuer must fail
	@integration/tools/deps.sh curl envoy
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(TOOLS)/bin/demo ./integration/demo
	@$(TOOLS)/bin/demo -bin bin -envoy $(ENVOY)

test: ## every test, installing what it needs; what can't be had here is skipped by name
	@integration/tools/test.sh

test-unit: ## the tests that start no process, with the race detector
	$(GO) test -race -timeout 5m $$($(GO) list ./... | grep -Ev '/(integration|bench)(/|$$)')

lint: ## gofmt, go vet, staticcheck, go.mod tidy
	@integration/tools/lint.sh

build: ## static binaries into bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ ./cmd/...

bench: build ## CPU, latency and memory of a pair of sidecars beside its peers, in one run; BENCH=bulk,rt,connect,memory
	@integration/tools/deps.sh envoy
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(TOOLS)/bin/bench ./bench
	@CGO_ENABLED=0 $(GO) build -trimpath -tags noopa,grpcnotrace -ldflags '-s -w' -o $(TOOLS)/bin/lanyard-sidecar-noopa ./cmd/lanyard-sidecar
	@$(TOOLS)/bin/bench -bin bin -envoy $(ENVOY) -lean $(TOOLS)/bin/lanyard-sidecar-noopa -run "$(BENCH)" $(BENCHFLAGS)

bench-issuer: build ## an issuer beside the real spire-server in $$LANYARD_PEERS, in one run; BENCHFLAGS='-entries 10000'
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(TOOLS)/bin/bench-issuer ./bench/issuer
	@$(TOOLS)/bin/bench-issuer -bin bin $(BENCHFLAGS)

bench-agent: build ## a node agent beside the real spire-agent in $$LANYARD_PEERS, in one run; BENCH=changes,first,calls,streams
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(TOOLS)/bin/bench-agent ./bench/agent
	@$(TOOLS)/bin/bench-agent -bin bin -run "$(BENCH)" $(BENCHFLAGS)

guards: ## take each security guard out by a patch, and see its test fail
	@$(GO) run ./integration/tools/guards

interop: build ## the tests with the real binaries in $$LANYARD_PEERS; fails where one is missing
	@integration/tools/deps.sh curl envoy python java
	LANYARD_REQUIRE_PEERS=1 LANYARD_BIN=$(CURDIR)/bin $(GO) test -count=1 -v -timeout 15m -run '^TestInterop' ./integration/...

soak: build ## the long forms: a minute a fuzz target, 200 kills, every unit test 20 times
	@integration/tools/deps.sh gcc curl envoy python java programs
	@integration/tools/kube.sh
	LANYARD_SOAK=1 LANYARD_BIN=$(CURDIR)/bin $(GO) run ./integration/tools/testall -count 20 -fuzztime 60s -timeout 2h

generate: ## the Go code of the .proto files
	cd internal/spireapi/proto && $(GO) tool -modfile=$(CURDIR)/internal/tools/go.mod buf generate

clean: ## remove what the other targets made
	rm -rf bin $(TOOLS)
