#!/usr/bin/env bash
# Serves the tiny model by the vLLM that install.sh made, in the foreground:
#
#     tests/engine/serve.sh PORT [vllm serve options…]      GET /health answers once it is up (about 40 s)
#
# The folder is VLLM_FOLDER, else install.sh's default. Nothing leaves the machine: no hub, no usage statistics.
set -euo pipefail
port=${1:?usage: serve.sh PORT [vllm serve options…]}
shift
folder=${VLLM_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/tallygrid/vllm}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
# Run from its folder, so that /v1/models shows a relative path and no folder of this machine.
cd "$folder"
exec bin/vllm serve ./model --served-model-name tiny --host 127.0.0.1 --port "$port" \
  --dtype bfloat16 --enforce-eager --max-model-len 1024 --max-num-seqs 16 "$@"
