#!/usr/bin/env bash
# Turns a virtual environment into one for a GPU: MXNet's GPU build in the place of its CPU build, with CUDA 11 and cuDNN 8
# from NVIDIA's packages (pyproject.toml, extra gpu), 2.1 GB of downloads in all. The driver is the system's own; nothing else
# of CUDA need be there. May be run again. `pip install -e .` alone would bring the CPU build back, beside the other.
#
#   bash scripts/setup_gpu.sh [PYTHON]     PYTHON: the environment's interpreter (default: python, of the active one)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
if ! command -v "$python" >/dev/null; then
    echo "setup_gpu.sh: there is no $python; activate the environment, or name its interpreter" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)'; then
    echo "setup_gpu.sh: $python is not that of a virtual environment; make one with: python3 -m venv .venv" >&2
    exit 2
fi
install=("$python" -m pip install --quiet)

# Both builds have the same files: whichever goes takes those of the other along.
"$python" -m pip uninstall --quiet --yes mxnet mxnet-cu112 mxnet-cu117
"${install[@]}" mxnet-cu112==1.9.1 'setuptools>=75'
# Not isolated: in an environment of its own the build would find the CPU build, and ask for that.
"${install[@]}" --no-build-isolation --editable '.[gpu]'

"$python" -m mnist_trainer doctor
