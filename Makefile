# Development targets. `go test ./...` needs none of them.
GO ?= go
BIN := bin
FUZZTIME ?= 30s
FUZZPKGS ?= ./...
LDFLAGS := -s -w
RACEPKGS ?= ./crypto/... ./dataplane/... ./discovery/... ./netstack/... ./sandbox/... ./api/... ./node
RACENODES ?= OnOneMachine|Crash|RoundRobin|TasksOutlive

.PHONY: build check test race lint fuzz bench performance goals soak clean

build: ## the binary, static and stripped
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ovnd ./cmd/ovnd

check: lint test race ## what has to pass before a change lands

test:
	$(GO) test ./...

race: ## the packages that share memory between goroutines, and whole nodes
	$(GO) test -race -short $(RACEPKGS)
	OVND_RACE=1 $(GO) test -short -count=1 -run '$(RACENODES)' ./node/e2e

lint: $(BIN)/golangci-lint
	$(GO) vet ./...
	$(BIN)/golangci-lint run ./...

$(BIN)/golangci-lint: tools/go.mod
	$(GO) -C tools build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

fuzz: ## every fuzz target, FUZZTIME each
	@set -e; for pkg in $$($(GO) list $(FUZZPKGS)); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

bench: ## the data path beside kernel VXLAN and wireguard-go, five minutes
	$(GO) run ./cmd/ovnd bench path --baseline veth,kernel,wireguard

performance: ## README's section about speed, from a run on this machine
	@mkdir -p $(BIN)
	$(GO) run ./cmd/ovnd bench path --baseline veth,kernel,wireguard --rounds 10 --time 1s --json >$(BIN)/performance.json
	$(GO) run ./bench/report/readme $(BIN)/performance.json README.md

goals: ## the runs that the goals in bench/RESULTS.md are read from, to bin/goals: a quarter of an hour on an idle machine
	@mkdir -p $(BIN)/goals
	$(GO) build -o $(BIN)/goals/ovnd ./cmd/ovnd
	cd $(BIN)/goals && ./ovnd bench path --baseline veth,kernel,wireguard --test tcp,tcp-many,udp,rtt-idle,rtt-full --rounds 10 --time 1s --out path
	cd $(BIN)/goals && ./ovnd bench path --subject ovnd --baseline kernel --mtu 9000 --test tcp --rounds 10 --time 1s --out jumbo
	cd $(BIN)/goals && ./ovnd bench path --subject ovnd-local --baseline veth --test tcp --rounds 10 --time 1s --out local
	cd $(BIN)/goals && ./ovnd bench path --subject ovnd-egress,ovnd-proxy,ovnd-port --baseline slirp4netns,pasta --test tcp,connect --rounds 10 --time 1s --out outside
	cd $(BIN)/goals && ./ovnd bench vip --rounds 10 --time 1s --out vip
	cd $(BIN)/goals && ./ovnd bench scale --out scale

soak: ## the long forms of the tests: hours, not minutes
	OVND_SOAK=1 $(GO) test -count=1 -timeout 4h ./...

clean:
	rm -rf $(BIN)
