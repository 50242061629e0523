#!/usr/bin/env bash
# Collect the wheels that a GPU machine without network needs besides PyTorch,
# timm, OpenCV and the usual scientific packages, in .gpu_wheels (ignored by
# git). Run it in the project's environment, on a machine with network:
#   bash benchmarks/gpu_wheels.sh [PYTHON_VERSION]        (default: 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-3.12} folder=.gpu_wheels
pure=(mmengine==0.10.7 mmcv-lite==2.1.0 mmpose==1.3.2 mmsegmentation==1.2.2
      mmpretrain==1.2.0 mmdet==3.3.0 addict==2.4.0 yapf==0.43.0
      termcolor terminaltables==3.1.10 json-tricks munkres==1.1.4 ftfy mat4py
      modelindex model-index ordered-set prettytable wcwidth==0.2.13
      platformdirs importlib-metadata==8.7.0 'setuptools<81')
compiled=(pycocotools==2.0.11 shapely regex)
rm -rf "$folder"
python -m pip wheel -q --no-deps --no-build-isolation -w "$folder" "${pure[@]}"
python -m pip download -q --no-deps --only-binary=:all: -d "$folder" \
    --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    "${compiled[@]}"
# Building keeps wheels of this Python; those for another one are refused here.
python -m pip install -q --dry-run --no-index --no-deps --only-binary=:all: \
    --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
    --target "$folder/site" "$folder"/*.whl
size=$(du -sm "$folder" | cut -f1)
echo "$(ls "$folder" | wc -l) wheels, $size MiB, in $folder"
[ "$size" -lt 64 ] || { echo "more than 64 MiB: too much to carry"; exit 1; }
