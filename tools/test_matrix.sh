#!/usr/bin/env bash
# Test the package with other versions, in a separate environment.
#
#   bash tools/test_matrix.sh oldest      # requirements/oldest.txt
#   bash tools/test_matrix.sh newest      # requirements/tested.txt
#   bash tools/test_matrix.sh 3.12        # likewise, with this Python
#   bash tools/test_matrix.sh /path/to/python3.13
#   PYTHON=/path/to/python3.10 bash tools/test_matrix.sh oldest
#   bash tools/test_matrix.sh oldest tests/core/test_ocr.py -k scale
#
# The environment is created as .venv-NAME in this checkout and kept for reuse
# (up to 6 GB; delete the folder to remove it). ENVS sets another parent folder.
# Runs the tests of core, compat, parity and packaging, or the given ones, and
# then one short training of each task. The first use takes minutes to install.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TESTS=(core/test_versions compat/test_compat compat/test_xtcocotools
    utils/test_check_env core/test_parity core/test_core_attention
    core/test_core_blocks core/test_core_hrformer core/test_ocr
    core/test_cls_head deploy/test_optimize project/test_packaging)

give_up() {
    echo "error: $1" >&2
    exit 2
}

find_python() { # VERSION...: print $PYTHON, or the first one installed
    local version
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
        return
    fi
    for version; do
        if "python$version" -c '' 2>/dev/null; then
            command -v "python$version"
            return
        fi
    done
    give_up "no python$1 found; install it, or pass the path of one"
}

[ $# -ge 1 ] || give_up "usage: bash $0 oldest|newest|PYTHON [arguments of pytest]"
name=$1 CONSTRAINTS=$root/requirements/tested.txt
shift
case $name in
oldest)
    base=$(find_python 3.10 3.11)
    CONSTRAINTS=$root/requirements/oldest.txt
    ;;
newest) base=$(find_python 3.13 3.12 3.11 3.10) ;;
*/*)
    base=$name
    name=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    ;;
*) base=$(find_python "$name") ;;
esac

export VIRTUAL_ENV=${ENVS:-$root}/.venv-$name CONSTRAINTS
[ -x "$VIRTUAL_ENV/bin/python" ] || "$base" -m venv "$VIRTUAL_ENV"
python=$(bash "$root/tools/setup_env.sh" --tests)
cd "$root"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echo "== $name: $("$python" --version), torch $("$python" -c \
    'import torch; print(torch.__version__)')"
if [ $# = 0 ]; then
    set -- "${TESTS[@]/%/.py}"
    set -- "${@/#/tests/}"
fi
"$python" -m pytest -q "$@"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for task in pose seg cls; do
    echo "== training: $task"
    "$python" "$root/tools/quickstart.py" --task "$task" --epochs 1 \
        --train-images 16 --val-images 4 --work-dir "$work/$task" \
        --cfg-options train_dataloader.batch_size=8 \
        train_dataloader.num_workers=0 val_dataloader.num_workers=0 \
        train_dataloader.persistent_workers=False \
        val_dataloader.persistent_workers=False
done
echo "== $name: all passed"
