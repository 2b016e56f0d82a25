# Everything is installed into .venv; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: train test test-all check data-bench clean

$(STAMP): settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

models/me5-small-zh-en/config.json: $(STAMP)
	python -m rerank_nb.base --output_dir models/me5-small-zh-en

train: models/me5-small-zh-en/config.json  ## the main job: base weights -> reranker, before and after
	python benchmarks/example.py

test: $(STAMP)  ## notebooks and pytest, without what is marked slow or gpu
	nbdev_test --n_workers 2
	python -m pytest -q tests

test-all: $(STAMP)  ## with the slow set
	nbdev_test --n_workers 1 --flags slow
	python -m pytest -q tests -m ""

check: $(STAMP)  ## are the notebooks clean and the package in sync with them?
	nbdev_export
	nbdev_clean
	test -z "$$(git status --porcelain)" || { git status --short; git diff --stat; echo 'notebooks not clean or package not in sync: run nbdev_export and nbdev_clean, then commit'; exit 1; }

data-bench: $(STAMP)  ## memory and speed of the first pass over 10 MB and 1 GB
	python benchmarks/data.py

clean:
	rm -rf output models build dist *.egg-info
