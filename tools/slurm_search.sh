#!/usr/bin/env bash
# Usage: slurm_search.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of search.py]
: "${4:?CHECKPOINT is missing: slurm_search.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments]}"
exec "$(dirname "$0")/launch/search.sh" slurm.sh "$1" "$2" search.py "$3" "$4" "${@:5}"
