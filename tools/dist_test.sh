#!/usr/bin/env bash
# Usage: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
exec "$(dirname "$0")/launch/dist.sh" "$3" test.py "$1" "$2" "${@:4}"
