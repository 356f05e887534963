#!/usr/bin/env bash
# Usage: dist_search.sh CONFIG CHECKPOINT GPUS [arguments of search.py]
: "${3:?GPUS is missing: dist_search.sh CONFIG CHECKPOINT GPUS [arguments]}"
exec "$(dirname "$0")/launch/search.sh" dist.sh "$3" search.py "$1" "$2" "${@:4}"
