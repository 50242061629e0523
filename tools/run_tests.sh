#!/usr/bin/env bash
# Set up the environment if necessary, then run the linters and the tests.
#
#   bash tools/run_tests.sh                     # tests not marked slow
#   bash tools/run_tests.sh --slow              # all tests
#   bash tools/run_tests.sh -m slow             # slow tests only
#   bash tools/run_tests.sh -m gpu              # GPU tests only
#   bash tools/run_tests.sh --lint              # linters only
#   bash tools/run_tests.sh tests/zoo -k row   # arguments of pytest
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --slow ]; then
    shift
    set -- -m 'slow or not slow' "$@"
fi
python=$(bash tools/setup_env.sh --tests)

"$python" -m ruff check
"$python" -m codespell_lib
"$python" tools/lint_language.py
"$python" -m mypy
if [ "${1:-}" = --lint ]; then
    exit
fi

# One process for each core, up to four, and one thread in each: most of the
# time is Python and small tensors, for which threads only wait for each other.
workers=$("$python" -c 'import os; print(min(os.cpu_count(), 4))')
export OMP_NUM_THREADS=1
exec "$python" -m pytest -q -n "$workers" --dist loadfile "$@"
