#!/usr/bin/env bash
# Set up a Python environment with all dependencies of the project.
#
#   bash tools/setup_env.sh             # progress is printed to stderr
#   bash tools/setup_env.sh --tests     # also dependencies of tests and export
#   PYTHON=$(bash tools/setup_env.sh)   # stdout is the path of its python
#
# The active environment is used if it has Python 3.10 to 3.14, otherwise .venv
# of this checkout, which is created if necessary. An installed torch or
# compiled mmcv is kept; mmcv-lite is installed if there is no mmcv. Nothing is
# compiled. If nothing has changed, a second call returns at once; --force
# installs again. When a step fails, the script prints how to fix it.
#
# CONSTRAINTS is a file of versions (default: requirements/tested.txt).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS=ignore
versions=${CONSTRAINTS:-$root/requirements/tested.txt}
force=0 tests=0 steps=5 step=0

say() {
    echo "$@" >&2
}

give_up() {
    say "error: $1"
    exit 1
}

for option; do
    case $option in
    --force) force=1 ;;
    --tests) tests=1 steps=6 ;;
    *) give_up "unknown option $option; there are --tests and --force" ;;
    esac
done
[ -r "$versions" ] || give_up "CONSTRAINTS=$versions cannot be read"

suits() { # whether a python runs and has a supported version
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' \
        2>/dev/null
}

find_base_python() {
    local name
    for name in python3.11 python3 python python3.{12,10,13,14}; do
        if command -v "$name" >/dev/null && suits "$name"; then
            command -v "$name"
            return
        fi
    done
    give_up 'no Python 3.10 to 3.14 found. Install one, or activate an environment that has it'
}

choose_environment() { # sets env and python
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "$active" ]; then
        if suits "$active/bin/python"; then
            env=$active python=$active/bin/python
            return
        fi
        say "$active is active, but has no Python 3.10 to 3.14: using .venv"
    fi
    env=$root/.venv python=$root/.venv/bin/python
    if ! suits "$python"; then
        local base options=(--clear)
        base=$(find_base_python)
        # As in containers; an environment cannot be seen from another one.
        if "$base" -c 'import sys, torch; sys.exit(sys.prefix != sys.base_prefix)' 2>/dev/null; then
            options+=(--system-site-packages)
        fi
        say "making $env with $("$base" --version)"
        "$base" -m venv "${options[@]}" "$env" >&2 || give_up \
            "$base cannot make environments. On Debian and Ubuntu: apt-get install python3-venv"
    fi
}

notice_untested_python() {
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 14))'; then
        say "notice: $("$python" --version) is newer than the versions that are tested, 3.10 to 3.13"
    fi
}

fingerprint() { # print requirements and installed versions
    cat "$root"/requirements/*.txt "$root"/setup.* "${BASH_SOURCE[0]}"
    cat "$versions"
    echo "$root"
    cd "$env" # Python would also find packages in the current folder
    "$python" - <<'END'
import sys
from importlib.metadata import distributions

print(sys.version)
print(sorted((d.metadata['Name'], d.version) for d in distributions()))
END
}

stamp() {
    fingerprint | cksum
}

installed() { # print the versions of installed distributions, one per line
    "$python" - "$@" <<'END'
import sys
from importlib.metadata import PackageNotFoundError, version

for name in sys.argv[1:]:
    try:
        print(f'{name}=={version(name)}')
    except PackageNotFoundError:
        pass
END
}

run() { # TITLE HINT COMMAND...: run a step; print the hint if it fails
    local title=$1 hint=$2 start=$SECONDS
    shift 2
    step=$((step + 1))
    say -n "[$step/$steps] $title ... "
    echo "== $title" >>"$log"
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        say 'failed'
        tail -n 15 "$log" >&2
        say "All of it is in $log"
        give_up "$hint"
    fi
    say "$((SECONDS - start)) s"
}

pip_install() {
    "$python" -m pip install -c "$constraints" "$@"
}

# The steps. They are called in a condition, so -e does not stop them: hence &&.

install_build_tools() {
    { "$python" -m pip --version || "$python" -m ensurepip; } &&
        pip_install wheel numpy 'setuptools>=64,<81' &&
        installed numpy >>"$constraints"
}

import_torch() { # an operator of torchvision fails if they do not match
    "$python" -c 'import torch, torchvision as v
v.ops.nms(torch.rand(1, 4), torch.rand(1), .5)'
}

install_torch() {
    local torch
    torch=$(installed torch)
    if [ -z "$torch" ] || ! import_torch; then
        pip_install "${torch:-torch>=2.1}" torchvision && import_torch
    fi && installed torch torchvision >>"$constraints"
}

install_requirements() { # FILES: without packages that others provide
    local wanted=$env/hrformer_mm.requirements.txt skip='^(#' name
    if [ -n "$(installed mmcv onedl-mmcv)" ]; then
        skip+='|mmcv-lite'
    fi
    if [ -n "$(installed onedl-mim)" ]; then # it has the same module
        skip+='|openmim'
    fi
    for name; do
        cat "$root/requirements/$name.txt"
    done | grep -Ev "$skip)" >"$wanted"
    pip_install --no-build-isolation -r "$wanted"
}

install_frameworks() { # without dependencies: MMPose lists unneeded ones
    install_requirements runtime pose seg cls && pip_install --no-deps mmpose
}

install_project() {
    pip_install --no-deps --no-build-isolation -e "$root"
}

check() {
    "$python" -m hrformer_mm.check_env --quick --offline
}

choose_environment
log=$env/hrformer_mm.log
done_stamp=$env/hrformer_mm.stamp
tests_stamp=$env/hrformer_mm.tests.stamp
constraints=$env/hrformer_mm.constraints.txt
exec 9>"$env/hrformer_mm.lock"
if command -v flock >/dev/null; then
    flock 9 # simultaneous calls wait for each other
fi

is_done() { # STAMP: whether requirements and environment are unchanged
    [ "$force" = 0 ] && [ -e "$root/hrformer_mm/.mim/configs" ] &&
        [ "$(stamp)" = "$(cat "$1" 2>/dev/null)" ]
}

if is_done "$([ "$tests" = 1 ] && echo "$tests_stamp" || echo "$done_stamp")"
then
    echo "$python"
    exit
fi

say "environment: $env ($("$python" --version))"
notice_untested_python
: >"$log"
rm -f "$done_stamp" "$tests_stamp"
cp "$versions" "$constraints"
network='Is the package registry reachable? Then run this again; it continues where it stopped'
run 'pip and build tools' "$network" install_build_tools
run 'torch and torchvision' "torch and torchvision of this environment cannot be brought together. $network, or give up this torch: $python -m pip uninstall -y torch torchvision" install_torch
run 'MMEngine, MMCV, MMPose, MMSegmentation, MMPretrain' "$network" install_frameworks
run 'hrformer_mm, editable' "Is $root writable?" install_project
run 'check_env' "Run the commands that it printed above, or see all: $python -m hrformer_mm.check_env" check
stamp >"$done_stamp"
if [ "$tests" = 1 ]; then
    run 'tools for tests and export' "$network. Only tools/run_tests.sh and tools/export.py need them" \
        install_requirements tests dpt export
    stamp | tee "$done_stamp" >"$tests_stamp"
fi
say "environment ready in $SECONDS s; to use it: source $env/bin/activate"
echo "$python"
