# Everything is installed into .venv; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: train start test test-all slow lowest pythons engines faults kills mutate gpu check docs readme graph release bench bench-all data-bench clean

$(STAMP): settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

models/me5-small-zh-en/config.json: $(STAMP)
	python -m rerank_nb.base --output_dir models/me5-small-zh-en --reranker 0

models/me5-small-zh-en-%/config.json: $(STAMP)
	python -m rerank_nb.base --output_dir models/me5-small-zh-en-$* --layers $* --reranker 0

models/reranker-zh-en/config.json: $(STAMP) rerank_nb/start.safetensors
	python -m rerank_nb.base --output_dir models/reranker-zh-en
	touch $@

train: models/reranker-zh-en/config.json  ## the main job: a start and labels -> reranker, before and after
	python examples/zh_en.py

start: $(STAMP)  ## remake what `python -m rerank_nb.base` adds to the encoder: texts, teachers, lessons, patch; two hours, goes on where it stopped
	python start/texts.py
	python start/everyday.py
	python start/lists.py
	python start/teachers.py
	python start/near.py
	python start/apart.py
	python start/cosine.py
	python start/train.py
	python start/patch.py

test slow faults kills mutate: export OMP_NUM_THREADS = 1   # tests run two at a time
test slow faults kills mutate: export CUDA_VISIBLE_DEVICES =   # what they expect are a CPU's figures; make gpu has its own

test: $(STAMP) models/me5-small-zh-en-3/config.json models/reranker-zh-en/config.json  ## notebooks and pytest, without what is marked slow or gpu
	nbdev_test --n_workers 2
	python -m pytest -q -n 2 --dist worksteal tests

# notebooks and pytest with the Python of an environment, $(1): both, whatever the first says
in = PATH=$(CURDIR)/$(1)/bin:$$PATH CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 sh -c \
  'nbdev_test --n_workers 2; notebooks=$$?; python -m pytest -q -n 2 --dist worksteal tests && exit $$notebooks'

test-all: slow kills lowest pythons  ## all of it without gpu, engines and mutate: hours

slow: $(STAMP) models/me5-small-zh-en-3/config.json models/me5-small-zh-en/config.json models/reranker-zh-en/config.json  ## test with what is marked slow
	nbdev_test --n_workers 1 --flags slow
	python -m pytest -q tests -m "not gpu"

lowest: models/me5-small-zh-en-3/config.json models/reranker-zh-en/config.json  ## test on the lowest torch, transformers and accelerate that settings.ini allows, in an environment of its own, .lowest/
	test -x .lowest/bin/python || $(PYTHON) -m venv .lowest
	grep -Ev '^(torch|transformers|accelerate|tokenizers|huggingface_hub)[=<]' constraints.txt > .lowest/constraints.txt
	.lowest/bin/python -m pip install --quiet -c .lowest/constraints.txt -e '.[dev]' 'torch==2.11.*' 'transformers==5.12.*' 'accelerate==1.12.*'
	$(call in,.lowest)

pythons: models/me5-small-zh-en-3/config.json models/reranker-zh-en/config.json  ## test on the other Pythons from 3.10 to 3.13 that this machine has, each in an environment of its own, .python3.13/ and so on
	bad=; for v in 3.10 3.11 3.12 3.13; do \
	  python -V | grep -q "$$v\." && continue; \
	  python$$v -c '' 2>/dev/null || { echo "python$$v: not here"; continue; }; \
	  echo "python$$v"; \
	  test -x .python$$v/bin/python || python$$v -m venv .python$$v; \
	  .python$$v/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]' && $(call in,.python$$v) || bad="$$bad $$v"; \
	done; test -z "$$bad" || { echo "failed on Python$$bad"; exit 1; }

engines: $(STAMP)  ## one folder in every engine; fastembed and infinity get environments of their own in .engines/; writes docs/engines.md
	ENGINES_TABLE=1 python -m pytest -q tests/test_engines.py -m "not gpu"

faults: kills  ## what RELIABILITY.md says, once more: kills, fuzzing, full disks, many files
	python -m pytest -q -m "not gpu" tests/test_faults.py tests/test_faults_launched.py tests/test_trust.py tests/test_every_text.py tests/test_edges.py

kills: $(STAMP)  ## the part of faults that is not in slow: kills at random, the long fuzzing, many files
	python tests/faults/kill.py --n 200
	FUZZ=2000 python -m pytest -q tests/test_fuzz.py
	python tests/faults/scale.py

mutate: $(STAMP)  ## break the source in some 130 small ways, one at a time: do the tests see it? Half an hour on two idle cores
	python tests/mutate.py

gpu: $(STAMP)  ## what needs a GPU: marked cells and tests, parity with the CPU, rates and their share of the peak; ten minutes
	python benchmarks/gpu.py

check: $(STAMP)  ## are the notebooks clean and the package in sync with them?
	nbdev_export
	nbdev_clean
	test -z "$$(git status --porcelain)" || { git status --short; git diff --stat; echo 'notebooks not clean or package not in sync: run nbdev_export and nbdev_clean, then commit'; exit 1; }

docs: $(STAMP)  ## the site, in _docs/, and a walk over its links
	python docs/build.py
	python docs/check.py

readme: $(STAMP)  ## README.md from nbs/index.ipynb
	python nbs/readme.py

graph: $(STAMP)  ## the graph of modules in CONTRIBUTING.md
	python docs/graph.py

release: $(STAMP)  ## make release VERSION=x.y.z
	@test -n "$(VERSION)" || { echo 'say which: make release VERSION=x.y.z'; exit 1; }
	@test -z "$$(git status --porcelain)" || { echo 'commit or stash first:'; git status --short; exit 1; }
	@grep -q '^## $(VERSION)$$' CHANGELOG.md || { echo 'CHANGELOG.md has no heading "## $(VERSION)"'; exit 1; }
	sed -i 's/^version = .*/version = $(VERSION)/' settings.ini
	nbdev_export
	rm -rf dist && python -m build --quiet --no-isolation
	git commit --quiet --all --message 'Release $(VERSION)' && git tag v$(VERSION)
	@ls dist

bench: $(STAMP) models/me5-small-zh-en-6/config.json  ## training and scoring beside sentence-transformers, 12 to 20 minutes
	python benchmarks/train.py
	python benchmarks/score.py

bench-all: bench data-bench  ## and the sweep of lengths, several processes, 1 GB of data
	python benchmarks/sweep.py
	python benchmarks/scaling.py

data-bench: $(STAMP)  ## memory and speed of the first pass over 10 MB and 1 GB
	python benchmarks/data.py

clean:
	rm -rf output models build dist *.egg-info
