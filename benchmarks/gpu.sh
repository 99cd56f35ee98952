#!/usr/bin/env bash
# The GPU pack on a bare machine without a network, in at most ten minutes.
#
#   benchmarks/gpu.sh --download wheels      where there is a network: fetch the wheels (some gigabytes, for CUDA)
#   benchmarks/gpu.sh wheels [OPTION...]     on the machine with the GPU; options go to gpu_pack.py
#
# --download also builds what exists as source only. TensorRT's wheels are in NVIDIA's own index: set PIP_EXTRA_INDEX_URL to
# it, or those rows are left out, as all rows are whose package is missing.
# Results: benchmarks/results/gpu.json, written after each row. Another call goes on where the time was over.
# MINUTES=10 bounds installation and measurement together; PYTHON=python3.11 chooses the interpreter of both machines.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
minutes=${MINUTES:-10}
venv=.venv-gpu

# What the rows need at least, and what some rows need; a row whose package is missing says so.
needed=(click 'numpy<2' pillow pyyaml 'tritonclient[grpc]' 'hydra-core>=1.3,<1.4' matplotlib safetensors tensorboard tqdm
    psutil onnx onnxscript protobuf 'torch>=2.6,<2.15' 'setuptools>=77')
optional=(onnxruntime-gpu tensorrt-cu13 nvidia-pytriton==0.7.0 nltk scipy)
apart=(gan-face-generate==1.1.1) # installed without what it asks for: only the weights inside are read

if [ "${1:-}" = --download ]; then
    wheels=${2:?usage: benchmarks/gpu.sh --download FOLDER}
    "$python" -m pip wheel --quiet --wheel-dir "$wheels" --find-links "$wheels" -c constraints.txt "${needed[@]}"
    for package in "${optional[@]}"; do
        "$python" -m pip wheel --quiet --wheel-dir "$wheels" --find-links "$wheels" -c constraints.txt "$package" || echo "left out: $package" >&2
    done
    "$python" -m pip wheel --quiet --wheel-dir "$wheels" --find-links "$wheels" --no-deps "${apart[@]}"
    exit
fi

wheels=${1:?usage: benchmarks/gpu.sh WHEELS [OPTION...], or --download WHEELS}
shift
[ -d "$wheels" ] || { echo "there is no folder $wheels" >&2; exit 2; }
offline=(--quiet --disable-pip-version-check --no-compile --no-index --find-links "$wheels")
if [ ! -e "$venv/.installed" ]; then
    "$python" -m venv --system-site-packages "$venv"
    "$venv/bin/pip" install "${offline[@]}" "${needed[@]}"
    for package in "${optional[@]}"; do
        "$venv/bin/pip" install "${offline[@]}" "$package" || echo "left out: $package is not in $wheels" >&2
    done
    "$venv/bin/pip" install "${offline[@]}" --no-deps "${apart[@]}" || echo "left out: ${apart[*]}" >&2
    "$venv/bin/pip" install "${offline[@]}" --no-deps --no-build-isolation -e . # registers the generators
    touch "$venv/.installed"
fi
left=$(awk -v all="$minutes" -v spent="$SECONDS" 'BEGIN { left = all - (spent + 20) / 60; print left < 0.5 ? 0.5 : left }')
"$venv/bin/python" benchmarks/gpu_pack.py --minutes "$left" --folder outputs/gpu \
    --output benchmarks/results/gpu.json "$@"
