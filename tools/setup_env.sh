#!/usr/bin/env bash
# Makes sure of a Python environment with all that the project needs.
#
#   bash tools/setup_env.sh             # says what it does, to stderr
#   PYTHON=$(bash tools/setup_env.sh)   # stdout is the path of its python
#
# The active environment is used if there is one with Python 3.10 to 3.13, and
# else .venv of this checkout, which is made if need be. A torch that is there
# stays as it is. Nothing of mmcv is compiled: a compiled mmcv that is there
# stays too, else mmcv-lite is installed. A second call finds its stamp and
# takes no time; --force installs again. When a step fails, it says what to do.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS=ignore
steps=6
step=0

say() {
    echo "$@" >&2
}

give_up() {
    say "error: $1"
    exit 1
}

suits() { # whether a python runs and has a version that works
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
        2>/dev/null
}

find_base_python() {
    local name
    for name in python3.11 python3 python python3.{12,10,13}; do
        if command -v "$name" >/dev/null && suits "$name"; then
            command -v "$name"
            return
        fi
    done
    give_up 'no Python 3.10 to 3.13 found. Install one, or activate an environment that has it'
}

choose_environment() { # sets env and python
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "$active" ]; then
        if suits "$active/bin/python"; then
            env=$active python=$active/bin/python
            return
        fi
        say "$active is active, but has no Python 3.10 to 3.13: using .venv"
    fi
    env=$root/.venv python=$root/.venv/bin/python
    if ! suits "$python"; then
        local base options=(--clear)
        base=$(find_base_python)
        if "$base" -c 'import torch' 2>/dev/null; then # as in containers
            options+=(--system-site-packages)
        fi
        say "making $env with $("$base" --version)"
        "$base" -m venv "${options[@]}" "$env" >&2 || give_up \
            "$base cannot make environments. On Debian and Ubuntu: apt-get install python3-venv"
    fi
}

fingerprint() { # of what is wanted and what is installed
    cat "$root"/requirements/*.txt "$root"/setup.* "${BASH_SOURCE[0]}"
    echo "$root"
    cd "$env" # Python would also see what is built in the current folder
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

installed() { # versions of distributions that are there, one a line
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

run() { # WHAT HINT COMMAND...: one step, with what to do when it fails
    local what=$1 hint=$2 start=$SECONDS
    shift 2
    step=$((step + 1))
    say -n "[$step/$steps] $what ... "
    echo "== $what" >>"$log"
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
        pip_install wheel cython numpy 'setuptools<81' &&
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
        pip_install "${torch:-torch>=2.0}" torchvision && import_torch
    fi && installed torch torchvision >>"$constraints"
}

install_frameworks() {
    # What MMPose asks for and does not need, and xtcocotools, come later.
    local wanted=$env/hrformer_mm.requirements.txt skip='^(#|xtcocotools'
    if [ -n "$(installed mmcv onedl-mmcv)" ]; then
        skip+='|mmcv-lite'
    fi
    if [ -n "$(installed onedl-mim)" ]; then # they bring the same module
        skip+='|openmim'
    fi
    cat "$root"/requirements/{runtime,pose,seg,cls,export,tests}.txt |
        grep -Ev "$skip)" >"$wanted"
    pip_install --no-build-isolation -r "$wanted" &&
        pip_install --no-deps mmpose
}

install_xtcocotools() { # its wheel is made for numpy 1, so build it
    "$python" -c 'import xtcocotools.mask' || {
        pip_install --no-deps --force-reinstall --no-cache-dir \
            --no-build-isolation --no-binary xtcocotools xtcocotools &&
            "$python" -c 'import xtcocotools.mask'
    }
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
constraints=$env/hrformer_mm.constraints.txt
exec 9>"$env/hrformer_mm.lock"
if command -v flock >/dev/null; then
    flock 9 # two calls at once take turns
fi
if [ "${1:-}" != --force ] && [ -e "$root/hrformer_mm/.mim/configs" ] &&
    [ "$(stamp)" = "$(cat "$done_stamp" 2>/dev/null)" ]; then
    echo "$python"
    exit
fi

say "environment: $env ($("$python" --version))"
: >"$log"
rm -f "$done_stamp"
cp "$root/requirements/tested.txt" "$constraints"
network='Is the package registry reachable? Then run this again; it goes on where it stopped'
run 'pip and build tools' "$network" install_build_tools
run 'torch and torchvision' "torch and torchvision of this environment cannot be brought together. $network, or give up this torch: $python -m pip uninstall -y torch torchvision" install_torch
run 'MMEngine, MMCV, MMPose, MMSegmentation, MMPretrain, test tools' "$network" install_frameworks
run 'xtcocotools, for the numpy that is there' 'It is compiled. Is there a C compiler (apt-get install gcc) and Python.h (apt-get install python3-dev)?' install_xtcocotools
run 'hrformer_mm, editable' "Is $root writable?" install_project
run 'check_env' "Run the commands that it printed above, or see all: $python -m hrformer_mm.check_env" check
stamp >"$done_stamp"
say "environment ready in $SECONDS s; to use it: source $env/bin/activate"
echo "$python"
