# make setup   everything in .venv, the extension built      make demo   a site on this machine, under loss, judged
# make test    every check and every test                    make lint   the static checks alone
# make bench   measurements (ARGS=--quick: short ones)       make soak   hours of faults in a row
# make fmt     format the sources                            make lock   pin the dependencies anew (needs uv)
# make packages   wheel, jar, NuGet and C packages of this platform, in dist/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One interpreter for every cargo command, or PyO3 is compiled anew at each change between them.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)

.NOTPARALLEL:
.PHONY: setup tools demo test test-clients test-rust lint lint-python lint-rust bench soak packages fmt lock clean

setup: tools $(VENV)/.extension

tools:
	@tools/check_tools.sh $(PYTHON)

# The stamps lie in the venv, so that removing it starts afresh. The second run needs no network: pip is not called,
# and cargo takes from its own store what Cargo.lock names.
$(VENV)/.requirements: requirements/dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.extension: $(VENV)/.requirements $(RUST_SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/sealcast demo

test-clients:
	@tools/install_test_clients.sh

lint: lint-python lint-rust

lint-python: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for system in win32 darwin; do \
	  $(BIN)/mypy --platform $$system --no-warn-unreachable --cache-dir .mypy_cache/$$system src || exit 1; done

# As maturin has it, or PyO3 is compiled anew whenever cargo is called by it and then without it.
lint-rust test-rust: export PYO3_CONFIG_FILE = $(firstword $(wildcard $(CURDIR)/target/maturin/pyo3-config-*.txt))
lint-rust test-rust: export PYO3_BUILD_EXTENSION_MODULE = 1

lint-rust: setup
	cargo fmt --check
	cargo clippy --quiet --release --locked --workspace --all-targets -- -D warnings

test-rust: lint-rust
	cargo test --quiet --profile tests --locked --workspace

# mypy keeps one core busy, and cargo does not always keep two. pytest comes last, so that its summary is the last thing
# printed.
test: setup test-clients
	@$(MAKE) --no-print-directory lint-python & beside=$$!; \
	  $(MAKE) --no-print-directory test-rust; rust=$$?; wait $$beside && exit $$rust
	$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

$(VENV)/.bench: requirements/bench.txt $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bench.txt
	@touch $@

bench: setup $(VENV)/.bench
	@$(BIN)/python -m bench $(ARGS)

soak: setup
	@$(BIN)/python -m bench.soak

packages: setup
	$(BIN)/python tools/package.py wheel sdist native java nuget c

# What the Python package needs at run time, as files: tests/packaging installs from them, without a network.
$(VENV)/.wheels: requirements/runtime.txt $(VENV)/.requirements
	$(BIN)/python -m pip download --quiet --require-hashes -r requirements/runtime.txt -d $@
	@touch $@

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
lock:
	for set in build runtime dev bench; do \
	  case $$set in build) of="--group build";; runtime) of=pyproject.toml;; dev) of="pyproject.toml --extra dev";; \
	    bench) of="pyproject.toml --extra dev --extra bench";; esac; \
	  { echo '# Made by `make lock` from pyproject.toml; do not edit by hand.'; \
	    $(LOCK) --quiet $$of; } > requirements/$$set.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) target dist .mypy_cache .pytest_cache .ruff_cache .hypothesis src/sealcast/_core*.so
