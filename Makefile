# Every developer's action; `make` alone lists them.

PYTHON ?= python3
PORT   ?= 5002
VENV   ?= .venv
TESTS  ?=
BIN    := $(VENV)/bin

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' proxy/__init__.py)

# Where `make install-systemd` installs. A new version gets a new folder, so that no file of a running service changes.
DESTDIR ?=
PREFIX  ?= /opt/llm-token-proxy
UNITS   ?= /usr/local/lib/systemd/system
ETC     := $(DESTDIR)/etc/llm-token-proxy
HOME_OF := $(DESTDIR)$(PREFIX)/$(VERSION)

CLIENTS      := .clients
CLIENT_LOCKS := tests/clients/environments
CLIENTS_MADE := $(patsubst $(CLIENT_LOCKS)/%.txt,$(CLIENTS)/%/.made,$(wildcard $(CLIENT_LOCKS)/*.txt)) \
                $(CLIENTS)/node/.made

PEERS      := .peers
PEER_LOCKS := tests/benchmarks/environments
PEERS_MADE := $(patsubst $(PEER_LOCKS)/%.txt,$(PEERS)/%/.made,$(wildcard $(PEER_LOCKS)/*.txt)) \
              $(PEERS)/portkey/.made

.DEFAULT_GOAL := help
.PHONY: help install install-systemd run test quick fleet check format lint types bench bench-peers bench-scale \
        bench-profile bench-overload bench-http bench-gc attacks fuzz soak pictures clients lock release clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.runtime ## Make the environment from the hashed lock file

install-systemd: $(VENV)/.build ## Install the service and its systemd units (as root; DESTDIR=... stages them)
	@$(PYTHON) -c 'import sys; sys.exit(sys.base_prefix.startswith(("/home/", "/root/")))' \
		|| { echo "the service cannot read $(PYTHON), which is in a home folder: choose another with PYTHON=..." >&2; exit 1; }
	@echo "installing into $(HOME_OF) ..."
	@$(PYTHON) -m venv --clear $(HOME_OF)
	@$(HOME_OF)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock \
		|| $(NOT_INSTALLED)
	@wheels=$$(mktemp -d) && trap 'rm -r "$$wheels"' EXIT && { $(BIN)/python -m hatchling build -t wheel -d "$$wheels" \
		>"$$wheels/log" 2>&1 || { cat "$$wheels/log" >&2; exit 1; }; } && $(HOME_OF)/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
		"$$wheels/llm_token_proxy-$(VERSION)-py3-none-any.whl"
	@[ -z "$(DESTDIR)" ] || find $(HOME_OF)/bin -type f -exec sed -i '1s|^#!$(DESTDIR)|#!|' {} + # made for the real path
	@install -d $(DESTDIR)/usr/local/bin $(DESTDIR)$(UNITS) $(ETC)
	@install -d -m 700 $(ETC)/secrets
	@ln -sfn $(PREFIX)/$(VERSION)/bin/llm-token-proxy $(DESTDIR)/usr/local/bin/llm-token-proxy
	@install -m 644 config/systemd/llm-token-proxy.socket $(DESTDIR)$(UNITS)
	@sed 's|/opt/llm-token-proxy/VERSION|$(PREFIX)/$(VERSION)|' config/systemd/llm-token-proxy.service \
		>$(DESTDIR)$(UNITS)/llm-token-proxy.service
	@for file in config/proxy.toml hypercorn.toml; do \
		[ -e $(ETC)/$${file##*/} ] || install -m 644 $$file $(ETC); \
	done
	@echo "installed; now: systemctl daemon-reload && systemctl enable llm-token-proxy.service" \
		"&& systemctl restart llm-token-proxy.service"

run: $(VENV)/.runtime ## Serve on 127.0.0.1:5002 in front of the demonstration gateway (PORT=6000 moves it)
	@exec $(BIN)/python -m proxy serve --config config/proxy.toml --bind 127.0.0.1:$(PORT)

test: $(VENV)/.dev ## Run every test but those of fleet (PROXY_TEST_REQUIRE=all: them too, and an absent nginx or redis-server is a failure)
	@PROXY_TEST_REQUIRE=$(PROXY_TEST_REQUIRE) $(BIN)/python -m tests $(TESTS)

quick: lint types ## Lint, types and the fast tests, in half a minute
	@$(BIN)/python -m tests --quick

fleet: $(VENV)/.dev ## Run the tests that load the machine: several workers, attacks on a fleet, short fuzzer and soak
	@PROXY_TEST_REQUIRE=$(PROXY_TEST_REQUIRE) $(BIN)/python -m pytest -m fleet -n 2 --dist loadgroup $(TESTS)

check: lint types test ## Check format, lint and types, and run the tests (.ci/run: what CI runs)

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(VENV)/.dev ## Look for faults without running
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/.dev ## Check types, strictly
	@$(BIN)/mypy

bench: $(VENV)/.dev $(PEERS)/service/.made ## Measure CPU time, latency and memory against two references (BENCH=--quick: a minute)
	@$(BIN)/python -m tests.benchmarks $(BENCH)

bench-peers: $(VENV)/.dev $(PEERS_MADE) ## Compare with other proxies (needs npm, caddy and haproxy)
	@$(BIN)/python -m tests.benchmarks --peers $(BENCH)

bench-scale: $(VENV)/.dev $(PEERS)/service/.made ## Measure how CPU and memory grow with open streams
	@$(BIN)/python -m tests.benchmarks.scale $(BENCH)

bench-profile: $(VENV)/.dev ## Show where the CPU time of a request, a burst and an event goes
	@$(BIN)/python -m tests.benchmarks.profile $(BENCH)

bench-overload: $(VENV)/.dev $(PEERS)/service/.made ## Show how much a flood by one caller slows the others
	@$(BIN)/python -m tests.benchmarks.overload $(BENCH)

bench-http: $(VENV)/.dev ## Compare the CPU time of the HTTP layer with that of stock Hypercorn
	@$(BIN)/python -m tests.benchmarks.http_layer $(BENCH)

bench-gc: $(VENV)/.dev ## Show how long garbage collections stall the event loop
	@$(BIN)/python -m tests.benchmarks.gc_pauses $(BENCH)

attacks: $(VENV)/.dev ## Attack a fleet of eight services for 15 minutes (needs redis-server)
	@$(BIN)/python -m tests.fleet $(ATTACKS)

soak: $(VENV)/.dev ## Stream through two workers for ten minutes, and kill one (SOAK="--minutes 2")
	@$(BIN)/python -m tests.soak $(SOAK)

fuzz: $(VENV)/.dev ## Send 100,000 random requests through misbehaving upstreams (SEED=... repeats a run)
	@$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(FUZZ)

pictures: $(VENV)/.dev ## Take and draw the pictures of the documents again (needs Chromium and prometheus)
	@$(BIN)/python -m tests.pictures
	@$(BIN)/python -m tests.dashboard

clients: $(CLIENTS_MADE) ## Make the environments of the client tests (needs node and npm)

lock: $(VENV)/.dev ## Resolve the dependencies anew into the lock files
	@$(BIN)/pip install --quiet uv
	@for wanted in "pyproject.toml:requirements.lock" "--group build:requirements-build.lock" \
		"--all-extras --group dev pyproject.toml:requirements-dev.lock"; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--custom-compile-command "make lock" $${wanted%%:*} -o $${wanted##*:}; \
	done
	@for wanted in $(CLIENT_LOCKS)/*.in $(PEER_LOCKS)/*.in; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--custom-compile-command "make lock" $$wanted -o $${wanted%.in}.txt; \
	done
	@for folder in $(CLIENT_LOCKS)/node $(PEER_LOCKS)/portkey; do \
		npm install --prefix $$folder --package-lock-only --omit-lockfile-registry-resolved --silent; \
	done

release: $(VENV)/.dev ## Build wheel, source distribution and bill of materials into dist/, the same bytes for one commit
	@$(BIN)/python -m tests.release

clean: ## Remove build and test files
	@rm -rf $(VENV) $(CLIENTS) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp is made only after its step has succeeded, so whatever was interrupted is done again. An environment
# that lost its Python, its pip or its packages afterwards is made again, too.
HAS_ALL := import sys; from importlib.util import find_spec as f; sys.exit(not (f("pip") and f("quart")))
ifneq ($(wildcard $(VENV)/.runtime),)
ifneq ($(shell $(BIN)/python -c '$(HAS_ALL)' >/dev/null 2>&1 && echo sound),sound)
LOST := $(VENV) has lost its Python or its packages: making it again ...
.PHONY: $(BIN)/python
endif
else ifneq ($(wildcard $(VENV)),)
HALF := $(VENV) is half made, since an earlier make was interrupted: finishing it ...
endif

NOT_INSTALLED = { echo "the packages could not be installed, see above: check the network; PIP_INDEX_URL names an \
	index of your own" >&2; exit 1; }

$(BIN)/python: # absent, or a link to a Python that is gone
	@[ -z "$(LOST)" ] || echo "$(LOST)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.runtime: requirements.lock $(BIN)/python
	@[ -z "$(HALF)" ] || echo "$(HALF)" >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| { echo "$(VENV) is half made, without pip: making it again ..." >&2; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing the locked packages into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock \
		|| $(NOT_INSTALLED)
	@$(BIN)/python -m pip uninstall --quiet --yes setuptools 2>/dev/null # of Python 3.11; 10 MB that nothing imports
	@touch $@

$(VENV)/.build: requirements-build.lock $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock \
		|| $(NOT_INSTALLED)
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock \
		|| $(NOT_INSTALLED)
	@touch $@

$(CLIENTS)/%/.made: $(CLIENT_LOCKS)/%.txt | $(BIN)/python
	@echo "installing the clients of $< into $(@D) ..."
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(CLIENTS)/node/.made: $(CLIENT_LOCKS)/node/package.json $(CLIENT_LOCKS)/node/package-lock.json
	@echo "installing the clients of $(<D) into $(@D) ..."
	@mkdir -p $(@D)
	@cp $^ $(@D)
	@npm ci --prefix $(@D) --silent --ignore-scripts --no-audit --no-fund
	@touch $@

$(PEERS)/%/.made: $(PEER_LOCKS)/%.txt | $(BIN)/python
	@echo "installing the proxy of $< into $(@D) ..."
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

# This service as operators install it, with the other servers.
$(PEERS)/service/.made: requirements.lock $(PEER_LOCKS)/service.txt | $(BIN)/python
	@echo "installing the service into $(@D) ..."
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		$(addprefix -r ,$^)
	@touch $@

$(PEERS)/portkey/.made: $(PEER_LOCKS)/portkey/package.json $(PEER_LOCKS)/portkey/package-lock.json
	@echo "installing the proxy of $(<D) into $(@D) ..."
	@mkdir -p $(@D)
	@cp $^ $(@D)
	@npm ci --prefix $(@D) --silent --ignore-scripts --no-audit --no-fund
	@touch $@
