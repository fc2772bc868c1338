# The targets of the project. `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= examples/digits.yaml
CLUSTER ?= kind
BUILD_IMAGES = $(BIN)/python -m modelyard.pipelines.compile.images

unexport PYTHONDONTWRITEBYTECODE # without bytecode files, each child process compiles the modules again: 0.1 s

TWO_CORES := -n 2 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup run test coverage lint format docs dist lock lock-images images images-accelerators kind-up kind-run kind-down test-cluster bench-data bench-flow bench-training bench-export bench-serving bench-rollout bench-plan bench-gate bench-submit bench-backend soak results clean

##@ Start here

help: ## List the targets
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup ## Run the pipeline with CONFIG (default: the digits example) and request a prediction
	$(BIN)/modelyard run $(CONFIG)

test: setup ## Run the tests in two processes
	$(BIN)/pytest -q $(TWO_CORES)

##@ Cluster

BUILD = $(BASE:%=--base %) $(REGISTRY:%=--registry %) $(SOURCE:%=--source %) $(REVISION:%=--revision %)

images: setup ## Build the images; BASE=base image, REGISTRY=registry to push to, SOURCE= and REVISION=, the labels of a release
	$(BUILD_IMAGES) $(BUILD)

images-accelerators: setup ## Build the large images of the step train for NVIDIA GPUs and TPUs
	$(BUILD_IMAGES) --accelerators $(BUILD)

kind-up: setup ## Create a kind cluster, push the images, apply the manifests; CLUSTER=current REGISTRY=… for the cluster of the current kubectl context
	CLUSTER=$(CLUSTER) manifests/kind/cluster up

kind-run: setup ## Run CONFIG with its steps as pods, roll out the model, request a prediction
	$(BIN)/modelyard run $(CONFIG) -e kind

kind-down: setup ## Remove what kind-up created
	CLUSTER=$(CLUSTER) manifests/kind/cluster down

test-cluster: setup ## Run the cluster tests on the cluster of the current kubectl context, whose nodes pull from REGISTRY
	CLUSTER=current manifests/kind/cluster up
	$(BIN)/pytest -q $(TWO_CORES) -m "cluster and not soak" tests/cluster

##@ Development

setup: .venv/installed ## Create .venv with the pinned packages

.venv/installed: requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

PROSE = '*.md' '*.html' '*.yaml' '*.yml' Makefile components pipelines modelyard

lint: setup ## Check style, types, YAML, workflows, spelling, phrases and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/codespell
	@! git grep -nIiE -f .ci/phrases -- $(PROSE) || { echo "These phrases are in .ci/phrases: use the words of Kubernetes, Keras and pytest."; exit 1; }
	@if command -v go >/dev/null; then go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.9; \
	else echo "NOT RUN: actionlint, which checks .github/workflows, needs go."; fi

format: setup ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: setup ## Write the generated pages of docs/ and build the site in build/site
	$(BIN)/modelyard config reference > docs/config.md
	$(BIN)/modelyard config reference --environments > docs/environment-keys.md
	$(BIN)/python docs/commands.py > docs/commands.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # without --quiet, which ignores warnings

dist: setup ## Build the sdist and, from it, the wheel, in build/dist
	rm -rf build/dist build/sdist && mkdir -p build/sdist
	$(BIN)/python -m hatchling build --target sdist --directory build/dist
	tar -xzf build/dist/*.tar.gz --directory build/sdist --strip-components 1
	cd build/sdist && ../../$(BIN)/python -m hatchling build --target wheel --directory ../dist

COMPILE = $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet
FOR_IMAGE = --constraint requirements/dev.txt --python-version 3.11 --group pyproject.toml:

lock: setup ## Resolve requirements/dev.txt from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) pyproject.toml --group dev --upgrade --output-file requirements/dev.txt
	$(MAKE) lock-images

lock-images: setup ## Resolve the images' requirements from pyproject.toml, at the versions of requirements/dev.txt
	for name in $$($(BUILD_IMAGES) --list); do \
	  $(COMPILE) $(FOR_IMAGE)$$name --output-file requirements/$$name.txt || exit; \
	done
	for name in kfp digits; do \
	  $(COMPILE) $(FOR_IMAGE)$$name --no-deps --output-file requirements/$$name.txt || exit; \
	done
	$(COMPILE) --python-version 3.11 --group pyproject.toml:clients --output-file requirements/clients.txt

clean: ## Remove runs, plans and caches; keep the models
	rm -rf .modelyard/runs .modelyard/cache .modelyard/plans .modelyard/errors .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

##@ Measure

coverage: setup ## Run the tests and print the coverage of each file, with branches
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(TWO_CORES)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench-data: setup ## Compare the speed of ingest and preprocess with that of SHA-256, and JPEG decoding with that of a Pillow loop; needs 4 GB of disk
	$(BIN)/python benchmarks/data.py

bench-flow: setup ## Compare a run, a rerun, training and the overhead of a step with bare scripts
	$(BIN)/python benchmarks/flow.py

bench-training: setup ## Compare training with the script of the tutorial
	$(BIN)/python benchmarks/training.py

bench-export: setup ## Compare the ONNX export of MobileNetV2 with plain tf2onnx: seconds, peak memory
	$(BIN)/python benchmarks/export.py

bench-serving: setup ## Compare the server with a bare handler and FastAPI
	$(BIN)/python benchmarks/serving.py

bench-plan: setup ## Compare predicted and actual training time of six networks with three sizes of data, in five rounds
	$(BIN)/python benchmarks/plan.py

bench-gate: setup ## Simulate how often a candidate passes the gate's comparison; prints the tables of docs/gate.md
	$(BIN)/python benchmarks/gate.py

bench-submit: setup ## Compare submit and compile with kfp.Client and KFP's compiler
	$(BIN)/python benchmarks/submit.py

bench-backend: setup ## Compare a run on the server at MODELYARD_TEST_KFP with a bare pipeline of five steps
	$(BIN)/python benchmarks/backend.py

bench-rollout: setup ## Promote and roll back under load, on the cluster of `make kind-up`
	$(BIN)/python benchmarks/rollout.py

soak: setup ## Run the long tests: kills at random times, attacks on the server, images for accelerators
	$(BIN)/pytest -q -m soak --timeout 3600

results: setup ## Export all Keras models and layers, and update docs/results.md; takes hours; NAMES="MobileNetV2 LSTM" selects models and layers
	$(BIN)/python benchmarks/export_coverage.py $(NAMES)
