# The commands beside these lines are in the README for those without make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= out

.DEFAULT_GOAL := help
.PHONY: help install demo text test sweep check golden picture gpu mutants fuzz faults hosts bench clean

help: ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[runtime,text,dev]'
	@touch $@

install: $(BIN)/.installed ## a virtual environment with everything in it

demo: install ## plan the paper's model for 16 GPUs, prove and draw it, run its small twin on 16 CPU ranks
	@mkdir -p $(OUT)
	$(BIN)/helixctl plan plans/paper/dense.model.yaml plans/paper/h100x16.cluster.yaml --plain --groups 4 --slices 4 \
	  -o $(OUT)/paper.plan.json --dag $(OUT)/paper.dag.json
	$(BIN)/helixctl validate $(OUT)/paper.plan.json $(OUT)/paper.dag.json
	$(BIN)/helixctl visualize $(OUT)/paper.dag.json -o $(OUT)/paper.html
	$(BIN)/helixctl plan plans/small/dense.model.yaml plans/small/cpu16.cluster.yaml --plain --groups 4 --slices 4 \
	  -o $(OUT)/small.plan.json --quiet
	$(BIN)/helixctl run $(OUT)/small.plan.json --warmup 5 --iters 20 --check --report $(OUT)/small.report.json

$(OUT)/smollm2/config.json: | install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'
	$(BIN)/python tests/text/smollm2.py $(@D)

# What the model is asked; the plan has room for 64 tokens of it, its template among them.
QUESTION ?= What is the capital of France, and what is it known for?

text: install $(OUT)/smollm2/config.json ## fetch a language model of 135M (93 MB), plan it for 4 CPU ranks, ask it QUESTION
	$(BIN)/helixctl plan $(OUT)/smollm2 plans/small/cpu4.cluster.yaml --batch 1 --input-len 64 --output-len 64 \
	  --layout groups=1,slices=4,slicing=key -o $(OUT)/smollm2.plan.json
	$(BIN)/helixctl run $(OUT)/smollm2.plan.json --weights $(OUT)/smollm2 --chat --prompt "$(QUESTION)"

# SEED=7 runs the tests in the random order of that seed.
PYTEST := $(BIN)/pytest -q -n 2 --dist loadgroup
PYTEST += $(if $(SEED),--random-order-bucket=global --random-order-seed=$(SEED))

test: install ## the tests, about 6 minutes; SEED=7 in a random order
	$(PYTEST)

sweep: install ## the tests that take longer, about half an hour; PART=1/2 a half of them; SEED=7 in a random order
	$(PYTEST) -m sweep $(if $(PART),--part $(PART))

check: install ## lint, types, import rules, proofs of the shipped plans
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/helixctl validate --quiet plans

golden: install ## rewrite the golden files and schemas after a wanted change
	$(BIN)/pytest -q -n 2 --update-golden -m "sweep or not sweep" tests

picture: install ## draw the pictures of docs/ again after a change of the drawing; needs Graphviz
	$(BIN)/helixctl visualize plans/paper/dense.4x4.dag.json --layer 0 -o docs/dag-4x4.png
	$(BIN)/helixctl visualize plans/paper/moe.4x4.dag.json --layer 0 -o docs/dag-moe.png
	$(BIN)/helixctl visualize plans/paper/dense.tp8-pp2.dag.json --layer 1 -o docs/dag-tp8-pp2.png
	$(BIN)/python tests/benchmarks/decode.py --picture

mutants: install ## break plans and dags in every way, see that each is refused: about 2 minutes
	$(BIN)/python tests/attack/mutants.py --update

bench: install ## everything that is measured or predicted in docs: about an hour
	$(BIN)/python tests/benchmarks/paper.py --update
	$(BIN)/python tests/benchmarks/scale.py --json docs/measurements/scale.json
	$(BIN)/python tests/benchmarks/solver.py --json docs/measurements/solver.json
	$(BIN)/python tests/benchmarks/predictions.py --json docs/measurements/predictions.json
	$(BIN)/python tests/benchmarks/paper_pairs.py --json docs/measurements/paper-pairs.json
	$(BIN)/python tests/benchmarks/hand_written.py --json docs/measurements/hand-written.json
	$(BIN)/python tests/benchmarks/products.py --json docs/measurements/products.json
	$(BIN)/python tests/benchmarks/collectives.py --kib 256 1024 2048 8192 --json docs/measurements/collectives.json
	$(BIN)/python tests/benchmarks/start.py --json docs/measurements/start.json
	$(BIN)/python tests/benchmarks/all_layouts.py --json docs/measurements/all-layouts.json
	$(BIN)/python tests/benchmarks/refused.py --update --json docs/measurements/refused.json
	$(BIN)/python tests/benchmarks/models.py --update --json docs/measurements/models.json
	$(BIN)/python tests/benchmarks/freed_memory.py --json docs/measurements/freed-memory.json
	$(BIN)/python tests/benchmarks/decode.py --update
	$(BIN)/python tests/benchmarks/decode_layer.py --update
	$(BIN)/python tests/benchmarks/latent.py --update
	$(BIN)/python tests/benchmarks/routing.py --update
	$(BIN)/python tests/benchmarks/links.py --update

fuzz: install ## read 20,000 malformed documents, see that each is refused soon: about 10 minutes
	$(BIN)/python tests/fuzz/fuzz.py --update

faults: install ## break runs on 16 ranks in every way, see how each ends: about 3 minutes
	$(BIN)/python tests/faults/table.py --update

hosts: install ## a run over two hosts, and the cable between them pulled; needs root
	$(BIN)/python tests/hosts/two_hosts.py --update

gpu: ## what one GPU can check and measure: about 4 minutes; writes reports to $(OUT)
	@mkdir -p $(OUT)
	PYTHONPATH=.:runtime $(PYTHON) tests/gpu/one_gpu.py --report $(OUT)/one-gpu.json
	PYTHONPATH=.:runtime $(PYTHON) -m helixctl calibrate --device cuda --ranks 1 -o $(OUT)/gpu.cluster.yaml --force
	PYTHONPATH=.:runtime $(PYTHON) tests/gpu/steps.py --calibrated $(OUT)/gpu.cluster.yaml --report $(OUT)/gpu-steps.json

clean: ## remove what was made
	rm -rf $(OUT) $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
