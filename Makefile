# vidgen: every target makes what it needs. 'make help' lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -q

# What the card of `world` tells of beside the first report, and the runs that trained its parts.
ALSO := full unseen unseen-rendered phrasings
RUNS := autoencoder-1 autoencoder text text-2 keyframes-1 keyframes-2 keyframes-3 keyframes-4 \
        keyframes-5 keyframes-6 keyframes-7 keyframes-8 keyframes-9 keyframes-10 keyframes-11 \
        keyframes-12 keyframes-13 keyframes-14 keyframes interpolation-1 interpolation \
        upsampler-1 upsampler video-decoder
SNAP := snap-video-1 snap-video-2 snap-video

.DEFAULT_GOAL := help
.PHONY: help demo test check man golden bench claims evaluate card samples clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## a prompt becomes demo.mp4 and demo.png (contact sheet)
	$(BIN)/vidgen generate "a red ball bounces on sand ground" --seed 7 --force -o demo.mp4
	$(BIN)/vidgen contact-sheet demo.mp4 --force -o demo.png

test: $(READY)  ## all tests: the fast ones first, then the slow ones
	$(PYTEST) -x -n 2 -m "not slow"
	$(PYTEST) -n 2 -m "slow"

check: $(READY)  ## format, lint, types and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -x -n 2 -m "not slow"

man: $(READY)  ## write the man pages from the command table
	$(BIN)/python -m vidgen.cli.man man

golden: $(READY)  ## rewrite the expected files of the golden tests (keeps .old beside them)
	VIDGEN_GOLDEN=rewrite $(PYTEST) tests/golden

bench: $(READY)  ## measure speed as ratios, side by side, and print the table
	$(BIN)/python -m benchmarks

claims: $(READY)  ## a paper's findings, looked at again: SYSTEM=fusion-frames, CLAIM=a for one of a to d (of snap-video, to e)
	$(BIN)/python -m benchmarks.claims $(or $(SYSTEM),fusion-frames) $(CLAIM)

evaluate: $(READY)  ## sample 1,900 clips to mp4, judge them, print the tables, write docs/evaluate-*.json
	benchmarks/evaluate.sh runs/evaluate
	cp runs/evaluate/evaluate-*.json runs/evaluate/failures*.png docs/

card: $(READY)  ## the model cards, from docs/evaluate-*.json and docs/runs
	$(BIN)/vidgen models card world --report docs/evaluate-world.json \
	    $(ALSO:%=--also docs/evaluate-%.json) $(RUNS:%=--run docs/runs/world-%) \
	    --failures docs/failures.png --force -o vidgen/models/world/README.md
	$(BIN)/vidgen models card snap-video --report docs/evaluate-snap-video.json \
	    $(SNAP:%=--run docs/runs/world-%) --force -o vidgen/models/snap-video/README.md

samples: $(READY)  ## docs/samples.png: sixteen prompts, phrased in sixteen ways, seed 1, none left out; docs/gallery.png: more frames of eight
	rm -rf runs/samples && mkdir -p runs/samples
	$(BIN)/vidgen generate -i docs/samples.txt --seed 1 --batch-size 16 -q -o runs/samples/all.vgs
	$(BIN)/vidgen contact-sheet runs/samples/all.vgs --columns 2 --scale 1 --force -o docs/samples.png
	head -8 docs/samples.txt | $(BIN)/vidgen generate -i - --seed 2 --batch-size 8 -q -o runs/samples/eight.vgs
	$(BIN)/vidgen contact-sheet runs/samples/eight.vgs --frames 9 --scale 1 --force -o docs/gallery.png

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo.mp4 demo.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
