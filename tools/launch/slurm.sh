#!/usr/bin/env bash
# Usage: slurm.sh PARTITION JOB_NAME TOOL [arguments]: starts a tool as a slurm job.
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS may be set.
set -e
tools=$(cd "$(dirname "$0")/.." && pwd)

# SRUN_ARGS may hold several arguments, in quotes where one has spaces
srun_args=()
while IFS= read -r -d '' argument; do
    srun_args+=("$argument")
done < <(xargs -r printf '%s\0' <<<"$SRUN_ARGS")

PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" exec srun \
    --partition="$1" \
    --job-name="$2" \
    --gres="gpu:${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    "${srun_args[@]}" \
    python -u "$tools/$3" "${@:4}" --launcher slurm
