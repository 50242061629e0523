# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The command ``hrformer-mm``, or ``python -m hrformer_mm``."""
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from hrformer_mm.utils import cli

EXAMPLES = """examples:
  hrformer-mm predict hrformer_b_coco_384x288 photo.jpg
  hrformer-mm predict CONFIG WEIGHTS photo.jpg
  hrformer-mm predict CONFIG WEIGHTS images/ 'more/*.png' clip.mp4
  hrformer-mm predict CONFIG WEIGHTS images/ --boxes detections.json
  hrformer-mm predict CONFIG WEIGHTS webcam --show
  hrformer-mm predict CONFIG WEIGHTS images/ --backend openvino
  hrformer-mm predict CONFIG person.xml images/

Writes predictions.json to --out-dir, and images and videos with the
predictions drawn to overlays/ below it:
  pose            COCO's results, and images.json: COCO('images.json')
                  .loadRes('predictions.json')
  segmentation    a PNG of labels for each image, below labels/
  classification  the five likeliest classes of each image
  detection       COCO's results with boxes and masks, and images.json
"""


LISTED = """examples:
  hrformer-mm list coco
  hrformer-mm list 'hrformer_b*' --pretrained
"""
DOWNLOADED = """Files go to $HRFORMER_MM_WEIGHTS, or to torch.hub's directory.

examples:
  hrformer-mm download hrformer_b_coco_384x288
  hrformer-mm download hrformer_small-09516375_20220226.pth
"""
SHOWN = """Serves a page, to this machine only, that shows the predictions on
an image or a short video dropped on it. It needs no network; users queue.

examples:
  hrformer-mm demo
  hrformer-mm demo hrformer_b_coco_384x288
  hrformer-mm demo CONFIG WEIGHTS --port 8080
"""
CHECKPOINTS = ('.pth', '.pt', '.safetensors', '.ckpt', '.bin', '.tar',
               '.onnx', '.xml')  # yapf: disable


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def add_predict(parser: ArgumentParser):
    """Add the arguments of ``hrformer-mm predict``."""
    add = parser.add_argument
    add('config', help='path of a config of any task, or the '
        'name of one of this package, see hrformer-mm list')  # yapf: disable
    add('weights', help='path, name or URL of the checkpoint, or a file of '
        'tools/export.py (.onnx, .xml); without it, the released weights of '
        'the config are downloaded once')  # yapf: disable
    add('inputs', nargs='*', metavar='input',
        help='image, directory, pattern, video, animated GIF, or webcam '
        '(webcam:1 is the second one)')  # yapf: disable
    add('--out-dir', default='predictions',
        help='write results to this folder '
        '(default: predictions)')  # yapf: disable
    add('--boxes', metavar='WHERE',
        help='pose: source of the bounding boxes. A JSON file; whole: one '
        'object fills the image; detector: a detector of torchvision, whose '
        'weights are downloaded once (default: detector, or whole with a '
        'warning if that is impossible)')
    add('--detector', metavar='NAME', nargs='+',
        help='pose: detector of torchvision (default: '
        'fasterrcnn_resnet50_fpn_v2), or CONFIG WEIGHTS of one of '
        'MMDetection')  # yapf: disable
    add('--box-thr', type=float, metavar='SCORE',
        help='pose: minimum score of a box (default: 0.5); the number of '
        'boxes dropped is reported. Detection: minimum score of an object to '
        'draw (default: 0.3)')  # yapf: disable
    add('--box-categories', nargs='+', metavar='CATEGORY',
        help='pose: names or ids of the categories whose boxes are used '
        "(default: the dataset's own; person for a model of people)")
    add('--keypoint-thr', type=float, metavar='SCORE',
        help='pose: minimum score of a keypoint to draw (default: 0.3)')
    add('--smooth', action='store_true', default=None,
        help='pose: smooth the keypoints of each person over the frames of '
        'videos (One-Euro filter)')  # yapf: disable
    add('--batch-size', type=positive, metavar='N',
        help='people, or images of one size, per forward pass '
        '(default: 32; segmentation: 1)')  # yapf: disable
    add('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is '
        'one)')  # yapf: disable
    cli.add_backend(parser)
    add('--max-frames', type=positive, metavar='N',
        help='stop after N frames of each video or camera')  # yapf: disable
    add('--no-overlay', action='store_true',
        help='do not write images with the predictions drawn')
    add('--show', action='store_true',
        help='also show the predictions in a window; press q to quit')
    add('--force', action='store_true', help='overwrite existing files')
    cli.add_cfg_options(parser)


def add_list(parser: ArgumentParser):
    """Add the arguments of ``hrformer-mm list``."""
    parser.add_argument(
        'pattern', nargs='?', default='*',
        help="part of the name, or a pattern such as 'hrformer_b*' (default: "
        'all)')  # yapf: disable
    parser.add_argument(
        '--pretrained', action='store_true',
        help='only models whose weights can be downloaded')  # yapf: disable


def add_download(parser: ArgumentParser):
    """Add the arguments of ``hrformer-mm download``."""
    parser.add_argument('name', help='name of a config, or of a checkpoint')


def add_demo(parser: ArgumentParser):
    """Add the arguments of ``hrformer-mm demo``."""
    add = parser.add_argument
    add('config', nargs='?', default='hrformer_s_coco_256x192',
        help='path or name of a config (default: %(default)s)')
    add('weights', nargs='?',
        help='path of the checkpoint; without it, the released weights of '
        'the config are downloaded once')  # yapf: disable
    add('--port', type=positive,
        help='port (default: the first free one from 7860)')
    add('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is '
        'one)')  # yapf: disable
    add('--boxes', metavar='WHERE',
        help='pose: whole or detector, see hrformer-mm predict --help')
    add('--max-seconds', type=positive, default=10, metavar='N',
        help='use the first N seconds of a video (default: 10)')
    add('--max-mb', type=positive, default=100, metavar='N',
        help='refuse files of more than N MB (default: 100)')
    add('--open', action='store_true', help='open the page in the browser')
    cli.add_cfg_options(parser)


def make_parser() -> ArgumentParser:
    parser = ArgumentParser('hrformer-mm', description='HRFormer for MMPose, '
                            'MMSegmentation and MMPretrain.')  # yapf: disable
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND')
    for name, add, text, examples in (
        ('predict', add_predict, 'predict on images, videos and cameras',
         EXAMPLES),
        ('list', add_list, 'list the models that are known by name', LISTED),
        ('download', add_download, 'download released weights and print '
         'where they are', DOWNLOADED),
        ('demo', add_demo, 'try a model on a web page', SHOWN),
    ):  # yapf: disable
        add(
            commands.add_parser(
                name,
                help=text,
                description=f'{text.capitalize()}.',
                epilog=f'{examples}\n{cli.EPILOG}',
                formatter_class=RawDescriptionHelpFormatter))
    return parser


def quieten():
    """Silence the libraries' own messages about each damaged file.

    One line of the report names it.
    """
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    warnings.filterwarnings('ignore', module='mm(pose|seg|pretrain|det|cv)')


def run_list(args: Namespace) -> int:
    from hrformer_mm.apis import list_models
    names = list_models(args.pattern, args.pretrained)
    if not names:
        raise ValueError(f'no model is named {args.pattern!r}; hrformer-mm '
                         'list shows all')
    print('\n'.join(names))
    return 0


def run_download(args: Namespace) -> int:
    from hrformer_mm.apis import find_weights
    from hrformer_mm.checkpoints import find_file
    from hrformer_mm.engine.train import read_config
    with redirect_stdout(sys.stderr):  # scripts read the path alone
        path = find_file(args.name) if args.name.endswith(CHECKPOINTS) else (
            find_weights(read_config(args.name)))
    print(path)
    return 0


def split_weights(args: Namespace):
    """Take what is no checkpoint for the first input."""
    if not args.weights.endswith(CHECKPOINTS) and (
            not args.inputs or not Path(args.config).exists()):
        args.inputs.insert(0, args.weights)
        args.weights = None


def split_detector(args: Namespace):
    """Take words after the detector, or its weights, for inputs."""
    words = args.detector or []
    is_pair = len(words) > 1 and words[1].endswith(CHECKPOINTS)
    args.inputs += words[1 + is_pair:]
    if words:
        args.detector = tuple(words[:2]) if is_pair else words[0]


def run_predict(args: Namespace) -> int:
    quieten()
    from hrformer_mm.apis import predict
    from hrformer_mm.engine.train import merge_options, read_config
    split_detector(args)
    split_weights(args)
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    options = dict(boxes=args.boxes, box_threshold=args.box_thr,
                   box_categories=args.box_categories, smooth=args.smooth,
                   detector=args.detector,
                   keypoint_threshold=args.keypoint_thr)
    options = {k: v for k, v in options.items() if v is not None}
    scope = cfg.get('default_scope')
    of_pose = [key for key in options
               if (scope, key) != ('mmdet', 'box_threshold')]
    if of_pose and scope != 'mmpose':
        raise ValueError('--boxes, --box-thr, --box-categories, --detector, '
                         '--keypoint-thr and --smooth are for pose, and '
                         f'{args.config} is not')
    outcome = predict(
        cfg, args.weights, args.inputs, args.out_dir, not args.no_overlay,
        args.show, args.max_frames, args.force, device=args.device,
        batch_size=args.batch_size, backend=args.backend,
        precision=args.precision, **options)  # yapf: disable
    print(outcome)
    return int(bool(outcome.failed))


def run_demo(args: Namespace) -> int:
    quieten()
    from hrformer_mm.apis import demo, demo_page
    demo_page.import_gradio()  # before the weights are downloaded
    from hrformer_mm.apis import load_predictor
    from hrformer_mm.engine.train import merge_options, read_config
    from hrformer_mm.tasks import get_task
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    task = get_task(cfg).name
    if args.boxes and task != 'pose':
        raise ValueError(f'--boxes is for pose, and {args.config} is not')
    boxes = dict(boxes=args.boxes) if args.boxes else {}
    predictor = load_predictor(
        cfg, args.weights, device=args.device, **boxes)
    limits = demo.Limits(args.max_seconds, args.max_mb)
    for text in (*predictor.notes, *predictor.problems):
        print(text)
    page = demo.Demo(predictor, task, Path(args.config).stem, limits)
    demo_page.launch(page, args.port, args.open)
    return 0


def parse_args(argv: Sequence[str] | None) -> Namespace:
    """Parse the command line; inputs may also come after options."""
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (args.command != 'predict' or any(
            word.startswith('-') for word in rest)):
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    if rest:
        args.inputs += rest
    return args


RUN = dict(predict=run_predict, list=run_list, download=run_download,
           demo=run_demo)  # yapf: disable


@cli.one_line_errors
def main(argv=None) -> int:
    args = parse_args(argv)
    return RUN[args.command](args)


if __name__ == '__main__':
    sys.exit(main())
