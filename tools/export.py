# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Export a trained model to ONNX, OpenVINO or torch.export.

Batch norms are folded and attention biases are constants. The file is read
back, run and compared with PyTorch; if the outputs differ, nothing is
written. Inputs are normalised images [B, 3, height, width], outputs heatmaps
or logits. A segmentation model that is tested in sliding windows
(test_cfg.mode='slide') is exported with its windows, for images of one size.
Detectors of two stages, such as Faster R-CNN, cannot be exported.
tools/onnx_predict.py shows how to use such a file without PyTorch;
hrformer-mm predict and tools/test.py take it in place of a checkpoint.

OpenVINO is the fastest on CPUs: --precision bf16 where they have
instructions for it, and int8, which is calibrated with images of the
validation set. int8 is written only if it costs at most --max-drop points of
the config's metric; layers that cost too much are kept in higher precision.
"""
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from hrformer_mm.deploy import export, runtimes
from hrformer_mm.engine.train import merge_options, read_config
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/export.py configs/pose/hrformer_s_coco_256x192.py \\
      work_dirs/NAME/epoch_210.pth --dynamic --post
  python tools/export.py configs/seg/hrformer_s_cityscapes_512x1024.py \\
      work_dirs/NAME/iter_80000.pth --dynamic --check --out city.onnx
  python tools/export.py CONFIG WEIGHTS --format openvino --dynamic \\
      --precision bf16
  python tools/export.py CONFIG WEIGHTS --format openvino --dynamic \\
      --precision int8 --calibrate CONFIG --max-drop 0.3

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
        '.onnx, .xml or .pt2)')
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
        help='compute in float16; images and outputs stay float32 (not for '
        'OpenVINO)')
    parser.add_argument(
        '--precision',
        choices=runtimes.PRECISIONS,
        help='precision of --format openvino (default: fp32)')
    parser.add_argument(
        '--calibrate',
        metavar='CONFIG_OR_FOLDER',
        help='images for int8: the validation data of a config, which also '
        'measure its accuracy, or a folder of images, which do not')
    parser.add_argument(
        '--samples',
        type=int,
        default=300,
        metavar='N',
        help='number of images for int8 (default: %(default)s); the accuracy '
        'is measured on the whole validation set')
    parser.add_argument(
        '--max-drop',
        type=float,
        default=0.5,
        metavar='POINTS',
        help='maximum loss by int8 of the metric, in points of 100, or in '
        'pixels for EPE (default: %(default)s)')
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
    calibrate = args.calibrate
    if calibrate and not Path(calibrate).is_dir():
        calibrate = read_config(calibrate)
        merge_options(calibrate, args.cfg_options)
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
        force=args.force,
        precision=args.precision,
        calibrate=calibrate,
        samples=args.samples,
        max_drop=args.max_drop)
    for shape, found in report.differences.items():
        worst = ', '.join(f'{k} {v:.2g}' for k, v in found.items())
        print(f'images {list(shape)} differ from PyTorch by: {worst}')
    for note in report.notes:
        print(note)
    files = [report.path, report.path.with_suffix('.bin')]
    size = sum(p.stat().st_size for p in files if p.is_file()) / 2**20
    print(f'wrote {report.path} ({size:.1f} MiB, {report.nodes} nodes)')


if __name__ == '__main__':
    main()
