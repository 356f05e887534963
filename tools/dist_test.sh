#!/usr/bin/env bash
# Usage: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
: "${3:?GPUS is missing: dist_test.sh CONFIG CHECKPOINT GPUS [arguments]}"
exec "$(dirname "$0")/launch/dist.sh" "$3" test.py "$1" "$2" "${@:4}"
