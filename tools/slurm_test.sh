#!/usr/bin/env bash
# Usage: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]
: "${4:?CHECKPOINT is missing: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments]}"
exec "$(dirname "$0")/launch/slurm.sh" "$1" "$2" test.py "$3" "$4" "${@:5}"
