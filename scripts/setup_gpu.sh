#!/usr/bin/env bash
# Sets up a virtual environment for a GPU: replaces MXNet's CPU build by its GPU build, and installs CUDA 11 and cuDNN 8 from
# NVIDIA's packages (pyproject.toml, extra gpu). It downloads 2.1 GB. The system must have NVIDIA's driver, but no other part of
# CUDA. The script can be run again.
#
#   bash scripts/setup_gpu.sh [PYTHON]     PYTHON: the environment's interpreter (default: python, of the active environment)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
if ! command -v "$python" >/dev/null; then
    echo "setup_gpu.sh: there is no $python; activate the environment, or give its interpreter as the argument" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)'; then
    echo "setup_gpu.sh: $python does not belong to a virtual environment; create one with: python3 -m venv .venv" >&2
    exit 2
fi
install=("$python" -m pip install --quiet)

# Both builds install the same files, so uninstalling one removes files of the other. Uninstall both.
"$python" -m pip uninstall --quiet --yes mxnet mxnet-cu112 mxnet-cu117
"${install[@]}" --editable '.[gpu]'
"${install[@]}" --no-deps mxnet-cu112==1.9.1

"$python" -m mnist_trainer doctor
