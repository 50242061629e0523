#!/usr/bin/env bash
# Train on several processes: one per GPU, or gloo processes on CPU.
#
#   bash tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
#
# Several machines: run it on each, with NNODES, NODE_RANK, MASTER_ADDR and
# PORT set. On one machine PORT defaults to a free one. Missing machines are
# reported; the others give up after NODE_TIMEOUT=300 seconds.
#
# Exit codes: 0 done, 2 an error explained in one line, 143 stopped by SIGTERM
# and saved, 130 Ctrl-C, 128 + N killed by signal N; see
# docs/resume-and-clusters.md.
#
# A quick dry run comes first: it validates config, paths and weights in
# seconds, and stops on errors. PREFLIGHT=full also checks data, first steps and
# memory (a minute), PREFLIGHT=0 skips it. --dry-run does only the full one.
. "$(dirname "$0")/dist_common.sh"
[ $# -ge 2 ] || usage "$0" 'CONFIG GPUS [flags of tools/train.py]'

# dry_run [flags of tools/train.py]: check the run of all processes in one
dry_run() {
    WORLD_SIZE=$((PROCESSES * NNODES)) run_first "$PYTHON" \
        "$(dirname "$0")/train.py" "$@" --dry-run
}

PROCESSES=$2
set -- "$1" "${@:3}"
case " $* " in
*' --dry-run '*)
    dry_run "$@"
    exit
    ;;
esac
case ${PREFLIGHT:-quick} in
0) ;;
full) dry_run "$@" ;;
*) dry_run "$@" --quick ;;
esac
launch "$PROCESSES" train.py "$@"
