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
# A dry run comes first: it validates config, data and memory, and stops on
# errors. --dry-run does only this, PREFLIGHT=0 skips it.
. "$(dirname "$0")/dist_common.sh"
[ $# -ge 2 ] || usage "$0" 'CONFIG GPUS [flags of tools/train.py]'
case " ${*:3} " in
*' --dry-run '*) dry_run=1 ;;
*) dry_run=0 ;;
esac
if [ "${PREFLIGHT:-1}" != 0 ] || [ "$dry_run" = 1 ]; then
    WORLD_SIZE=$(($2 * NNODES)) run_first "$PYTHON" \
        "$(dirname "$0")/train.py" "$1" "${@:3}" --dry-run
fi
[ "$dry_run" = 0 ] || exit 0
launch "$2" train.py "$1" "${@:3}"
