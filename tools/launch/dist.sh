#!/usr/bin/env bash
# Usage: dist.sh GPUS TOOL [arguments]: starts a tool on the GPUs of this machine.
# Over several machines set NNODES, NODE_RANK and MASTER_ADDR; PORT may be set.
set -e
tools=$(cd "$(dirname "$0")/.." && pwd)

PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$1" \
    "$tools/$2" "${@:3}" --launcher pytorch
