#!/usr/bin/env bash
# Usage: slurm_search.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of search.py]
exec "$(dirname "$0")/launch/search.sh" slurm.sh "$1" "$2" search.py "$3" "$4" "${@:5}"
