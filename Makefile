# make demo    install, compress the demo model to 4 bit, measure it, let both write
# make test    install what the tests need, run them
# make check   test, and lint, types, import contracts
# make nightly check, the slow suites, sanitize and neon
# make sanitize the tests of the kernels under address and undefined-behaviour sanitizers
# make neon    compare the kernels of all tiers, those for aarch64 cross-compiled and emulated
# make native  compile csrc again, where whet is installed already (BIN=... for another environment)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= demo-int4
OPENING ?= "It was a dark night, and the"

NATIVE := $(shell find csrc -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt)

.PHONY: demo test check lint native sanitize neon nightly clean

demo: $(VENV)/.run
	$(BIN)/whet compress demo --recipe int4 -o $(OUT) --overwrite
	$(BIN)/whet measure $(OUT) --against demo
	$(BIN)/whet run demo $(OPENING) --max-tokens 60 --seed 1
	$(BIN)/whet run $(OUT) $(OPENING) --max-tokens 60 --seed 1
	@echo "report: $(CURDIR)/$(OUT)/report.html"

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow"

check: lint test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

nightly: lint $(VENV)/.test sanitize neon
	$(BIN)/python -m pytest -n 2

CONFIGURE := cmake -S csrc -DPython_EXECUTABLE="$(abspath $(BIN)/python)" \
	-Dnanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)"
PRELOAD = $(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libstdc++.so)

native:
	@mkdir -p build
	PATH="$(abspath $(BIN)):$$PATH" flock build/native.lock sh -c '$(CONFIGURE) -B build/native && \
		cmake --build build/native --parallel 2 && \
		(cd build/native && python -c "import _native") && cmake --install build/native \
		--prefix "$$(python -c "import sysconfig; print(sysconfig.get_path(\"platlib\"))")"'

sanitize:
	PATH="$(abspath $(BIN)):$$PATH" sh -c '$(CONFIGURE) -B build/sanitize -DWHET_SANITIZE=ON \
		-DWHET_CHECK=ON && cmake --build build/sanitize --parallel 2'
	build/sanitize/whet_check
	WHET_NATIVE="$$(ls $(abspath build/sanitize)/_native*.so)" LD_PRELOAD="$(PRELOAD)" \
		ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m pytest tests/kernels -p no:cacheprovider

TIERS := cmake -S csrc -DWHET_PYTHON=OFF -DWHET_CHECK=ON

neon:
	@for tool in aarch64-linux-gnu-g++ qemu-aarch64; do command -v $$tool > /dev/null || { \
		echo "neon: $$tool is missing (on Debian: apt-get install g++-aarch64-linux-gnu qemu-user)"; \
		exit 1; }; done
	PATH="$(abspath $(BIN)):$$PATH" sh -c '$(TIERS) -B build/tiers && \
		cmake --build build/tiers --parallel 2 && \
		$(TIERS) -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/csrc/aarch64.cmake && \
		cmake --build build/aarch64 --parallel 2'
	build/tiers/whet_check
	qemu-aarch64 -cpu max build/aarch64/whet_check
	qemu-aarch64 -cpu cortex-a53 build/aarch64/whet_check

clean:
	rm -rf $(VENV) $(OUT) dist build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(PIP) -e ".[compress,search]"
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(PIP) -e ".[compress,interop,search,test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e ".[compress,interop,search,test,dev]"
	@touch $@
