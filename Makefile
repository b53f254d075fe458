# make help  says this
# make run   sets everything up and runs the demo: a mesh with real Envoys on loopback
# make test  sets everything up and passes the tests
# make lint  ruff, mypy, import-linter, cython-lint, clang-format
# make bench measures all but what is long, 14 minutes, with a report; some: BENCH='--parts core push', which: BENCH=--list
# make figures writes README's tables of figures anew, of the newest results
# make bench-mesh has 2,000 simulated Envoys on real sockets (2 minutes)
# make bench-compare BASE=main~5  what each kind of change costs now, in terms of what it cost at another revision
# make bench-wire  the wire beside its peers, WIRE='--parts push --sizes 1000'
# make bench-instances PART=kills  has instances killed under load; outages: PostgreSQL away; workers: one and two of them
# make loadtest SCENARIO=rollout USERS=5000  has thousands of Envoys in locust; see loadtest/README.md
# make load-many STREAMS=50000  has as many delta streams as that, several on a connection, on a whole control plane
# make run-postgres  a control plane on a PostgreSQL of its own, for a look; both are gone afterwards
# make load-envoys N=50  has real Envoys with mTLS, and counts the requests through them that fail meanwhile
# make profile CASE=policy-storm  draws a flame graph of the control plane in a scenario, the compiled core included
# make soak MINUTES=60  has everything come and go in a mesh, and says whether the control plane grows
# make churn MINUTES=30  has clients come and go all the time, and says whether the servers grow

# Hundreds of processes start in the tests: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built
NATIVE := $(wildcard ext/*.pyx ext/*.pxd ext/*.pxi ext/*.hpp ext/CMakeLists.txt)

MINUTES ?= 30
SCENARIO ?= steady
USERS ?= 1000
WORKERS ?= 1
SECONDS ?= 60
RATE ?= 10
N ?= 50
STREAMS ?= 50000
EACH ?= 10
CASE ?= steady
PART ?= kills
TLS ?= none
BASE ?= main

.PHONY: help build envoy run run-postgres test test-fast lint bench figures bench-compare bench-mesh bench-wire bench-instances loadtest load-envoys load-many soak profile churn clean

build: $(STAMP)

$(STAMP): pyproject.toml CMakeLists.txt $(NATIVE) .ci/setup
	@sh .ci/setup $(VENV)
	@touch $(STAMP)

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

envoy: build
	@$(BIN)/kumafast envoy install

run: envoy
	@$(BIN)/kumafast demo

run-postgres: build
	@$(BIN)/python -m tests.postgresql --run

# What measures no time runs three at a time, for who waits for an Envoy needs no core. Attacks and loads are two at a time:
# they wait for half of theirs. Benchmarks have the machine to themselves. All but the first have three attempts: what is
# slower fails in all of them, what another machine beside this one took fails in one.
test: envoy
	@$(BIN)/python -m pytest tests bench -m "not (alone or informational)" --numprocesses 3 --dist worksteal -q
	@$(BIN)/python -m pytest $$(grep -rl --include='test_*.py' 'mark.alone' tests) -m "alone and not informational" \
		--numprocesses 2 --dist loadfile --reruns 2 -q
	@$(BIN)/python -m pytest bench -m "alone and not informational" --reruns 2

test-fast: build
	@$(BIN)/python -m pytest tests -m "not envoy and not slow"

lint: build
	@PATH="$(CURDIR)/$(BIN):$$PATH" pre-commit run --all-files

bench: envoy
	@$(BIN)/python -m bench $(BENCH)

figures: build
	@$(BIN)/python -m bench.readme

bench-compare: build
	@$(BIN)/python -m bench.compare $(BASE)

bench-wire: build
	@$(BIN)/python -m bench.wire $(WIRE)

bench-instances: build
	@$(BIN)/python -m bench.instances $(PART) --output bench/results/$$(date +%F)-$(PART).json

loadtest: build
	@$(BIN)/python -m loadtest --scenario $(SCENARIO) --users $(USERS) --workers $(WORKERS) --seconds $(SECONDS) \
		--rate $(RATE) --tls $(TLS) $(if $(UI),--ui)

load-envoys: envoy
	@$(BIN)/python -m loadtest.real_envoys --envoys $(N)

load-many: build
	@$(BIN)/python -m loadtest.many --streams $(STREAMS) --each $(EACH)

soak: build
	@$(BIN)/python -m loadtest --scenario soak --users $(USERS) --minutes $(MINUTES) --rate $(RATE)

profile: build
	@$(BIN)/python -m loadtest --scenario $(CASE) --users $(USERS) --seconds $(SECONDS) --rate $(RATE) --flame

churn: build
	@$(BIN)/python -m bench --parts churn --minutes $(MINUTES)

bench-mesh: build
	@$(BIN)/python -m bench --parts envoys

clean:
	rm -rf build $(VENV)
