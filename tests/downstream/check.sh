#!/usr/bin/env bash
# Does the DeepSpeed that requirements.txt pins take the right step?  ./check.sh --install, then ./check.sh [more arguments for pytest]
# Works in the active environment. Exit codes: pytest's own: 0 clean, 1 findings, 5 nothing was selected, else it could not be run.
set -euo pipefail
cd "$(dirname "$0")"

if [ "${1:-}" = --install ]; then
    # torch first and alone: DeepSpeed's build imports it. A build for processors is enough (TORCH_INDEX, see pytorch.org).
    python -c 'import torch' 2> /dev/null || python -m pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
    python -m pip install "setuptools>=77" wheel ninja numpy
    DS_BUILD_OPS=0 DS_ACCELERATOR=cpu python -m pip install --no-build-isolation --requirement requirements.txt
    exec python -m pip install "${TRUESTEP:-truestep}"
fi

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
exec python -m pytest -q -p no:cacheprovider --pyargs truestep.probes.test_offload \
    -m "deepspeed and offload and zero2" -k "mlp-W1-K and offload_optimizer:cpu and not adam and not bucket" \
    --truestep-baseline truestep-baseline.json --truestep-report truestep-results "$@"
