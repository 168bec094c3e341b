# Everything a newcomer needs: `make demo` shows style transfer, `make test` passes the tests, `make check` is the quick
# look, `make live` tries the extension in an existing WebUI. The first two set up what they need.

PYTHON ?= python3
VENVS ?= .venvs
PARALLEL ?= --numprocesses auto --dist loadfile

.PHONY: test check test-current test-webui live live-matrix demo clean

test: check test-current test-webui

# Lint, format and types, on today's releases.
check: $(VENVS)/current/installed
	$(VENVS)/current/bin/ruff check .
	$(VENVS)/current/bin/ruff format --check .
	$(VENVS)/current/bin/mypy

# The tests on today's releases of torch, transformers, diffusers.
test-current: $(VENVS)/current/installed
	$(VENVS)/current/bin/python -m pytest -q $(PARALLEL)

# The tests on the versions AUTOMATIC1111 1.10.1 ships; they need a Python 3.10. What never runs inside a WebUI is left
# out: the demo, the benchmarks and the command line. tests/parity still tries its pipelines on diffusers of those days.
OUTSIDE = tests/demo tests/benchmarks tests/standalone
PYTHON310 ?= $(shell command -v python3.10 >/dev/null && python3.10 -c '' 2>/dev/null && command -v python3.10 \
	|| ls $(HOME)/.pyenv/versions/3.10.*/bin/python3.10 2>/dev/null | tail -n 1)
ifeq ($(PYTHON310),)
test-webui:
	@echo "NOT RUN: the tests on the WebUI's own versions need Python 3.10, and none was found (set PYTHON310)."
else
test-webui: $(VENVS)/webui/installed
	$(VENVS)/webui/bin/python -m pytest -q $(PARALLEL) $(OUTSIDE:%=--ignore %)
endif

# Against a real WebUI, with its own Python: make live WEBUI_DIR=/path/to/webui WEBUI_PYTHON=/path/to/its/python
WEBUI_PYTHON ?= $(WEBUI_DIR)/venv/bin/python
live:
	@test -n "$(WEBUI_DIR)" || { echo "Set WEBUI_DIR to a WebUI: AUTOMATIC1111, Forge Neo, Forge, reForge or Forge Classic."; exit 2; }
	WEBUI_DIR="$(WEBUI_DIR)" "$(WEBUI_PYTHON)" -m pytest -q tests/live

# The part of it that ends in a table: every case with its verdict.
live-matrix:
	@test -n "$(WEBUI_DIR)" || { echo "Set WEBUI_DIR to a WebUI: AUTOMATIC1111, Forge Neo, Forge, reForge or Forge Classic."; exit 2; }
	WEBUI_DIR="$(WEBUI_DIR)" "$(WEBUI_PYTHON)" -m pytest -q tests/live -m matrix

# The embedded default: a picture sheet and a table, drawn by the small trained world that ships with the project. With
# MODEL=…, ADAPTER=… and ENCODER=… the same with SDXL's own weights; ARGS="…" for anything else (ARGS=--help).
demo: $(VENVS)/current/installed
	$(VENVS)/current/bin/python -m demo $(if $(MODEL),--model "$(MODEL)" --adapter "$(ADAPTER)" --encoder "$(ENCODER)") $(ARGS)

$(VENVS)/current/installed: tests/requirements-current.txt
	$(PYTHON) -m venv $(VENVS)/current
	$(VENVS)/current/bin/python -m pip install -q -r $<
	touch $@

$(VENVS)/webui/installed: tests/requirements-webui.txt
	$(PYTHON310) -m venv $(VENVS)/webui
	$(VENVS)/webui/bin/python -m pip install -q -r $<
	touch $@

clean:
	rm -rf $(VENVS)
