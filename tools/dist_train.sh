#!/usr/bin/env bash
# Usage: dist_train.sh CONFIG GPUS [arguments of train.py]
: "${2:?GPUS is missing: dist_train.sh CONFIG GPUS [arguments]}"
exec "$(dirname "$0")/launch/dist.sh" "$2" train.py "$1" "${@:3}"
