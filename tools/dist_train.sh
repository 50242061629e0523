#!/usr/bin/env bash
# Train on several processes: one per GPU, or gloo processes on CPU.
#
#   bash tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
#
# Several machines: run it on each, with NNODES, NODE_RANK, MASTER_ADDR and
# PORT set. On one machine PORT is a free one if it is not set.
. "$(dirname "$0")/dist_common.sh"
[ $# -ge 2 ] || usage "$0" 'CONFIG GPUS [flags of tools/train.py]'
launch "$2" train.py "$1" "${@:3}"
