#!/usr/bin/env bash
# Train on a Slurm cluster.
#
#   GPUS=16 bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [flags]
#
# Environment variables (defaults): GPUS (8), GPUS_PER_NODE (8),
# CPUS_PER_TASK (5), SRUN_ARGS (none).
. "$(dirname "$0")/slurm_common.sh"
[ $# -ge 4 ] || usage "$0" 'PARTITION JOB CONFIG WORK_DIR [flags]'
launch "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
