# Shared functions of slurm_train.sh and slurm_test.sh, which source this file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
PYTHON=${PYTHON:-python}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}

usage() {
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...]" \
        "bash $1 $2" >&2
    exit 2
}

# launch PARTITION JOB TOOL [arguments]
launch() {
    # shellcheck disable=SC2086  # SRUN_ARGS holds several arguments
    exec srun -p "$1" --job-name="$2" --gres=gpu:"$GPUS_PER_NODE" \
        --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="$CPUS_PER_TASK" --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "$PYTHON" -u "$(dirname "$0")/$3" "${@:4}" --launcher slurm
}
