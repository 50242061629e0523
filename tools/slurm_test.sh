#!/usr/bin/env bash
# Evaluate on a Slurm cluster.
#
#   bash tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [flags]
#
# For the environment variables, see tools/slurm_train.sh.
. "$(dirname "$0")/slurm_common.sh"
[ $# -ge 4 ] || usage "$0" 'PARTITION JOB CONFIG CHECKPOINT [flags]'
launch "$1" "$2" test.py "$3" "$4" "${@:5}"
