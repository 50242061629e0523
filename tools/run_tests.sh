#!/usr/bin/env bash
# Makes sure of the environment, then runs the lint and the tests.
#
#   bash tools/run_tests.sh                     # what is not marked slow
#   bash tools/run_tests.sh --slow              # all
#   bash tools/run_tests.sh -m slow             # only what takes longer
#   bash tools/run_tests.sh -m gpu              # only what needs a GPU
#   bash tools/run_tests.sh --lint              # no tests
#   bash tools/run_tests.sh tests/test_zoo.py -k row   # arguments of pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --slow ]; then
    shift
    set -- -m 'slow or not slow' "$@"
fi
python=$(bash tools/setup_env.sh --tests)

"$python" -m flake8
"$python" -m isort --check .
"$python" -m codespell_lib
"$python" -m mypy
if [ "${1:-}" = --lint ]; then
    exit
fi

# One process for each core, up to four, and one thread in each: most of the
# time is Python and small tensors, for which threads only wait for each other.
workers=$("$python" -c 'import os; print(min(os.cpu_count(), 4))')
export OMP_NUM_THREADS=1
exec "$python" -m pytest -q -n "$workers" --dist loadfile "$@"
