# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The command ``hrformer-mm``, or ``python -m hrformer_mm``."""
import os
import sys
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from hrformer_mm.utils import cli

EXAMPLES = """examples:
  hrformer-mm predict CONFIG WEIGHTS photo.jpg
  hrformer-mm predict CONFIG WEIGHTS images/ 'more/*.png' clip.mp4
  hrformer-mm predict CONFIG WEIGHTS images/ --boxes detections.json
  hrformer-mm predict CONFIG WEIGHTS webcam --show

Writes predictions.json to --out-dir, and images and videos with the
predictions drawn to overlays/ below it:
  pose            COCO's results, and images.json: COCO('images.json')
                  .loadRes('predictions.json')
  segmentation    a PNG of labels for each image, below labels/
  classification  the five likeliest classes of each image
"""


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def add_predict(parser: ArgumentParser):
    """Add the arguments of ``hrformer-mm predict``."""
    add = parser.add_argument
    add('config', help='path of a config of any of the three tasks')
    add('weights', help='path of the checkpoint')
    add('inputs', nargs='+', metavar='input',
        help='image, folder, pattern, video, animated GIF, or webcam '
        '(webcam:1 is the second one)')  # yapf: disable
    add('--out-dir', default='predictions',
        help='write results to this folder '
        '(default: predictions)')  # yapf: disable
    add('--boxes', metavar='WHERE',
        help='pose: source of the bounding boxes. A JSON file; whole: one '
        'object fills the image; detector: a torchvision detector whose '
        'weights are on this machine (default: detector if there is one, '
        'else whole)')
    add('--box-thr', type=float, metavar='SCORE',
        help='pose: minimum score of a box (default: 0.5); the number of '
        'boxes dropped is reported')  # yapf: disable
    add('--box-categories', nargs='+', metavar='CATEGORY',
        help='pose: names or ids of the categories whose boxes are used '
        "(default: the dataset's own; person for a model of people)")
    add('--keypoint-thr', type=float, metavar='SCORE',
        help='pose: minimum score of a keypoint to draw (default: 0.3)')
    add('--batch-size', type=positive, metavar='N',
        help='people, or images of one size, per forward pass '
        '(default: 32; segmentation: 1)')  # yapf: disable
    add('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is '
        'one)')  # yapf: disable
    add('--max-frames', type=positive, metavar='N',
        help='stop after N frames of each video or camera')  # yapf: disable
    add('--no-overlay', action='store_true',
        help='do not write images with the predictions drawn')
    add('--show', action='store_true',
        help='also show the predictions in a window; press q to quit')
    add('--force', action='store_true', help='overwrite existing files')
    cli.add_cfg_options(parser)


def make_parser() -> ArgumentParser:
    parser = ArgumentParser('hrformer-mm', description='HRFormer for MMPose, '
                            'MMSegmentation and MMPretrain.')  # yapf: disable
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND')
    text = 'predict on images, videos and cameras'
    add_predict(
        commands.add_parser(
            'predict',
            help=text,
            description=f'{text.capitalize()}.',
            epilog=f'{EXAMPLES}\n{cli.EPILOG}',
            formatter_class=RawDescriptionHelpFormatter))
    return parser


def quieten():
    """Silence the libraries' own messages about each damaged file.

    One line of the report names it.
    """
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    warnings.filterwarnings('ignore', module='mm(pose|seg|pretrain|det|cv)')


@cli.one_line_errors
def main(argv=None) -> int:
    args = make_parser().parse_args(argv)
    quieten()
    from hrformer_mm.apis import predict
    from hrformer_mm.engine.train import merge_options, read_config
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    options = dict(boxes=args.boxes, box_threshold=args.box_thr,
                   box_categories=args.box_categories,
                   keypoint_threshold=args.keypoint_thr)
    options = {k: v for k, v in options.items() if v is not None}
    if options and cfg.get('default_scope') != 'mmpose':
        raise ValueError('--boxes, --box-thr, --box-categories and '
                         '--keypoint-thr are for pose, and '
                         f'{args.config} is not')
    outcome = predict(
        cfg, args.weights, args.inputs, args.out_dir, not args.no_overlay,
        args.show, args.max_frames, args.force, device=args.device,
        batch_size=args.batch_size, **options)  # yapf: disable
    print(outcome)
    return int(bool(outcome.failed))


if __name__ == '__main__':
    sys.exit(main())
