#!/usr/bin/env bash
# Evaluate on several processes: one per GPU, or gloo processes on CPU.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of tools/test.py]
#
# Several machines: see tools/dist_train.sh.
. "$(dirname "$0")/dist_common.sh"
[ $# -ge 3 ] || usage "$0" 'CONFIG CHECKPOINT GPUS [flags of tools/test.py]'
launch "$3" test.py "$1" "$2" "${@:4}"
