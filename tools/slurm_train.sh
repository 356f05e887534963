#!/usr/bin/env bash
# Usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]
: "${4:?WORK_DIR is missing: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments]}"
exec "$(dirname "$0")/launch/slurm.sh" "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
