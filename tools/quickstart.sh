#!/usr/bin/env bash
# Train an HRFormer in minutes on synthetic data, evaluate it and draw its
# predictions. Sets up the environment first, if necessary.
#
#   bash tools/quickstart.sh                      # keypoints of people
#   bash tools/quickstart.sh --task seg           # or cls, det
#   bash tools/quickstart.sh --data-root DIR      # on your data
#   bash tools/quickstart.sh --help               # all options
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [[ " $* " == *' --help '* || " $* " == *' -h '* ]]; then
    python=${VIRTUAL_ENV:-$root/.venv}/bin/python
    # Without an environment, print the lines above: installing takes long.
    "$python" "$root/tools/quickstart.py" --help 2>/dev/null ||
        sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '/^!/d; /^Without/d'
    exit
fi

python=$(bash "$root/tools/setup_env.sh")
exec "$python" "$root/tools/quickstart.py" "$@"
