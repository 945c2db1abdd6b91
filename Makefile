# ollama-fortress: `make up` deploys on this machine, `make test` proves it.
STACK ?= dev
FORTRESS = bin/fortress
PYTEST = .venv/bin/python -m pytest
# Most of these tests wait for something: two at a time, each file with its own deployment or gateway.
SIDE_BY_SIDE = -n 2 --dist loadfile
.PHONY: images up preview down env bundle test test-unit test-program test-engine test-live test-browser soak lint golden bench bench-peers bootstrap

up:
	@$(FORTRESS) up --stack $(STACK)

preview:
	@$(FORTRESS) preview --stack $(STACK)

down:
	@$(FORTRESS) down --stack $(STACK)

env:
	@$(FORTRESS) env --stack $(STACK)

bundle:
	@$(FORTRESS) bundle $(USER) --stack $(STACK)

bootstrap:
	@bin/bootstrap

test: lint images test-unit test-program test-engine test-live test-browser

# What the tests run on: a Docker engine and the images, as `make up` would have them.
images: bootstrap
	$(FORTRESS) images build --all

test-unit: bootstrap
	$(PYTEST) $(SIDE_BY_SIDE) tests/unit

test-program: bootstrap
	$(PYTEST) tests/program

test-engine: bootstrap
	$(PYTEST) $(SIDE_BY_SIDE) tests/engine

test-live: bootstrap
	$(PYTEST) tests/live

test-browser: bootstrap
	$(PYTEST) $(SIDE_BY_SIDE) tests/browser

# Not in CI, and longer than an hour: no line of 10,000 is lost or doubled, and what all that watches needs of memory.
soak: images
	FORTRESS_SOAK=1 $(PYTEST) -s --timeout=7200 tests/engine/test_observability.py

golden: bootstrap
	FORTRESS_GOLDEN=write $(PYTEST) tests/unit -k golden -q

# A fortress of its own, measured and removed: bench/results/latest.json, and an error where a limit is not kept.
bench: images
	.venv/bin/python -m bench

# The same beside other gateways, which it installs into the user's cache: bench/results/peers.json.
bench-peers: images
	.venv/bin/python -m bench.peers

lint: bootstrap
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
