#!/usr/bin/env bash
# Measure all that needs a GPU in under ten minutes, the most valuable first.
#   bash benchmarks/gpu_session.sh OUT
# Wheels in .gpu_wheels (see gpu_wheels.sh) are installed for this run only.
# After each step OUT has its state in steps.jsonl and all logs and results in
# results.tar.gz, so that a run that is cut off leaves what it has measured.
# Environment:
#   LIMIT=540     seconds for all steps; later steps are skipped
#   REHEARSE=1    the same steps with tiny networks on the CPU
#   SCALE=1       factor of the limits of all steps, for slow machines
#   PRINT=1       print the commands instead of running them
#   DATA=FOLDER   also train on a small real dataset (benchmarks/real_data)
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:?usage: bash benchmarks/gpu_session.sh OUT}" && cd "$1" && pwd)
python=${PYTHON:-python3}
end=$((SECONDS + ${LIMIT:-540}))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
: > "$out/steps.jsonl"
mkdir -p "$work/results"

if [ "${REHEARSE:-}" ]; then
    export TORCHDYNAMO_DISABLE=1  # compiled networks, without the compiler
    export TRITON_INTERPRET=0  # Triton's interpreter has no bf16 arithmetic
    large=tiny small=tiny pose=64x64 pose_large=96x64 seg=64x128
    batch=2 few=1 device=cpu collect=--collect-only
    rounds=2
else
    large=base small=small pose=256x192 pose_large=384x288 seg=512x1024
    batch=32 few=2 device=cuda collect=
    rounds=7
fi

# step NAME SECONDS COMMAND...: run a command with a limit, keep its output.
step() {
    local name=$1 most=$2 left=$((end - SECONDS)) start=$SECONDS code=skipped
    shift 2
    most=$((most * ${SCALE:-1}))
    if [ "${PRINT:-}" ]; then
        echo "$name $*"
        return
    fi
    if [ "$left" -ge 10 ]; then
        timeout -k 5 "$((most < left ? most : left))" "$@" \
            > "$work/results/$name.log" 2>&1
        code=$?
    fi
    printf '{"step": "%s", "code": "%s", "seconds": %d}\n' \
        "$name" "$code" "$((SECONDS - start))" | tee -a "$out/steps.jsonl"
    tar -C "$work" -czf "$work/results.tar.gz" results &&
        cp "$work/results.tar.gz" "$out/results.tar.gz"
}

# compare NAME SECONDS KERNELS ARGUMENTS...: run the benchmark of backbones.
compare() {
    local name=$1 most=$2 kernels=$3
    shift 3
    step "$name" "$most" env HRFORMER_MM_KERNELS="$kernels" \
        "$python" -m benchmarks.backbone --device "$device" \
        --repeats "$rounds" --out "$work/results/$name" "$@"
}

if compgen -G '.gpu_wheels/*.whl' > /dev/null && [ -z "${REHEARSE:-}" ]; then
    step wheels 90 "$python" -m pip install -q --no-index --no-deps \
        --no-compile --no-cache-dir --target "$work/site" .gpu_wheels/*.whl
    export PYTHONPATH=$PYTHONPATH:$work/site
fi
step machine 60 "$python" -m benchmarks.gpu_machine
# Only the files with such tests: collecting all takes a minute and more.
step tests 120 "$python" -m pytest -q -x -m gpu -p no:cacheprovider $collect \
    $(grep -rl 'mark\.gpu' tests --include='test_*.py')

for kernels in plain triton; do
    compare "train-bf16-$kernels" 60 $kernels --arch $large --size $pose \
        --batch $batch --mode train --dtype bf16 --subjects mmpose ours
    compare "forward-bf16-$kernels" 60 $kernels --arch $large --size $pose \
        --batch $batch --mode forward --dtype bf16 \
        --subjects mmpose ours optimized
done
compare forward-bf16-compiled 100 plain --arch $large --size $pose \
    --batch $batch --mode forward --dtype bf16 \
    --subjects mmpose optimized-compiled optimized-graphs
step predicted 60 "$python" -m benchmarks.gpu_cost \
    --measured "$work"/results/*/results.json
for mode in train forward; do
    for kernels in plain triton; do
        compare "profile-$mode-$kernels" 40 $kernels --arch $large \
            --size $pose --batch $batch --mode $mode --dtype bf16 \
            --subjects mmpose ours --profile
    done
done
for kernels in plain triton; do
    compare "small-$kernels" 60 $kernels --arch $small --size $pose \
        --batch $batch --mode train forward --dtype bf16 \
        --subjects mmpose ours
    compare "precisions-$kernels" 80 $kernels --arch $large --size $pose \
        --batch $batch --mode train forward --dtype fp32 fp16 \
        --subjects mmpose ours
done
compare others 60 plain --arch $large --size $pose --batch $batch \
    --mode train forward --dtype bf16 \
    --subjects ours hrnet_w32 hrnet_w48 timm_swin_t
for kernels in plain triton; do
    compare "large-$kernels" 60 $kernels --arch $large --size $pose_large \
        --batch $batch --mode train forward --dtype bf16 \
        --subjects mmpose ours
    compare "segmentation-$kernels" 60 $kernels --arch $large --size $seg \
        --batch $few --window 15 --mode train forward --dtype bf16 \
        --subjects mmpose ours
done
compare train-bf16-compiled 120 plain --arch $large --size $pose \
    --batch $batch --mode train --dtype bf16 --subjects mmpose compiled
if [ "${DATA:-}" ]; then
    step real-data "$((end - SECONDS))" "$python" -m benchmarks.real_data.run \
        lspet --data-root "$DATA"
fi
