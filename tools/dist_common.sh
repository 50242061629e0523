# Shared functions of dist_train.sh and dist_test.sh, which source this file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}

usage() {
    echo "usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=... PORT=..." \
        "NODE_TIMEOUT=300] bash $1 $2" >&2
    exit 2
}

free_port() {
    "$PYTHON" -c 'import socket
with socket.socket() as s:
    s.bind(("", 0))
    print(s.getsockname()[1])'
}

# run_first COMMAND...: run before the launch, and stop when this script stops
run_first() {
    "$@" &
    local child=$! code=0
    trap 'kill "$child" 2>/dev/null; wait "$child"; exit 143' TERM
    trap 'kill "$child" 2>/dev/null; wait "$child"; exit 130' INT
    wait "$child" || code=$?
    trap - TERM INT
    return "$code"
}

# launch PROCESSES TOOL [arguments]
launch() {
    if [ -z "${PORT:-}" ]; then
        # Machines must agree on the port, so only one may choose freely.
        PORT=$([ "$NNODES" = 1 ] && free_port || echo 29500)
    fi
    # exec, so that a signal to this script reaches the processes. The launcher
    # has the options of torchrun and the documented exit codes.
    exec "$PYTHON" -m hrformer_mm.engine.launch --nnodes "$NNODES" \
        --node_rank "$NODE_RANK" --nproc_per_node "$1" \
        --master_addr "$MASTER_ADDR" --master_port "$PORT" \
        "$(dirname "$0")/$2" "${@:3}" --launcher pytorch
}
