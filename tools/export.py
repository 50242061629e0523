# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Export a trained model to ONNX or torch.export.

Batch norms are folded and attention biases are constants. The file is read
back, run and compared with PyTorch; if the outputs differ, nothing is
written. Inputs are normalised images [B, 3, height, width], outputs heatmaps
or logits. A segmentation model that is tested in sliding windows
(test_cfg.mode='slide') is exported with its windows, for images of one size.
Detectors of two stages, such as Faster R-CNN, cannot be exported.
tools/onnx_predict.py shows how to use such a file without PyTorch.
"""
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from hrformer_mm.deploy import export
from hrformer_mm.engine.train import merge_options, read_config
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/export.py configs/pose/hrformer_s_coco_256x192.py \\
      work_dirs/NAME/epoch_210.pth --dynamic --post
  python tools/export.py configs/seg/hrformer_s_cityscapes_512x1024.py \\
      work_dirs/NAME/iter_80000.pth --dynamic --check --out city.onnx

"""


def parse_args(argv=None) -> Namespace:
    parser = ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES + cli.EPILOG,
        formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('weights', help='path of the checkpoint (any layout)')
    parser.add_argument(
        '--out',
        help='file to write (default: path of the weights with the suffix '
        '.onnx or .pt2)')
    parser.add_argument(
        '--format',
        choices=sorted(export.FORMATS),
        default='onnx',
        help='format of the file (default: onnx)')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images (default: that of the config)')
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='accept any batch size and, for segmentation, any image size; '
        'otherwise one image of one size')
    parser.add_argument(
        '--half',
        action='store_true',
        help='compute in float16; images and outputs stay float32')
    parser.add_argument(
        '--post',
        action='store_true',
        help='output keypoints, label maps, probabilities, or boxes and '
        'scores before NMS instead of heatmaps and logits')
    parser.add_argument(
        '--check',
        action='store_true',
        help='compare with PyTorch at several batch and image sizes')
    parser.add_argument(
        '--opset',
        type=int,
        choices=export.OPSETS,
        default=export.FUSED_OPSET,
        metavar='N',
        help='version of the ONNX operators, 11 to 23 (default: %(default)s, '
        'the first with an operator for attention; 17 or lower for TensorRT '
        '8, RKNN and other older runtimes)')
    parser.add_argument(
        '--force', action='store_true', help='overwrite an existing file')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    out = args.out or Path(args.weights).with_suffix(
        export.FORMATS[args.format])
    report = export.export(
        cfg,
        args.weights,
        str(out),
        format=args.format,
        shape=args.shape and tuple(args.shape),
        dynamic=args.dynamic,
        half=args.half,
        post=args.post,
        check=args.check,
        opset=args.opset,
        force=args.force)
    for shape, found in report.differences.items():
        worst = ', '.join(f'{k} {v:.2g}' for k, v in found.items())
        print(f'images {list(shape)} differ from PyTorch by: {worst}')
    size = report.path.stat().st_size / 2**20
    print(f'wrote {report.path} ({size:.1f} MiB, {report.nodes} nodes)')


if __name__ == '__main__':
    main()
