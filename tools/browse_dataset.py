# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw the samples that the data pipeline of a config feeds to the model.

Samples are shown after augmentation, with the keypoints and heatmaps, labels
or classes that the model is trained on.
"""
from argparse import Namespace
from pathlib import Path

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli
from hrformer_mm.utils import config_checks as checks

EXAMPLES = """examples:
  python tools/browse_dataset.py configs/pose/hrformer_s_coco_256x192.py
  python tools/browse_dataset.py CONFIG --data-root DIR --number 40 --seed 1
  python tools/browse_dataset.py CONFIG --loader val --out-dir work_dirs/seen
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.dataset_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--loader',
        choices=['train', 'val', 'test'],
        default='train',
        help='data loader to draw (default: train)')
    parser.add_argument(
        '--number',
        type=int,
        default=12,
        help='number of samples (default: 12)')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of sampling and augmentation (default: 0)')
    parser.add_argument(
        '--out-dir',
        help='folder for CONFIG_LOADER.png (default: work_dirs/browse)')
    parser.add_argument(
        '--force', action='store_true', help='overwrite the picture')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    from hrformer_mm.apis.outputs import Outputs
    from hrformer_mm.datasets.browse import browse
    from hrformer_mm.visualization.figures import mosaic
    args = parse_args(argv)
    if args.number < 1:
        raise ValueError(f'--number must be at least 1, got {args.number}')
    cfg = training.config_for(args)
    outputs = Outputs(Path(args.out_dir or 'work_dirs/browse'), args.force)
    name = f'{Path(args.config).stem}_{args.loader}.png'
    outputs.check([name], ())
    loader = f'{args.loader}_dataloader'
    checks.check_data_files(cfg, loader)
    images = browse(cfg, loader, args.number, args.seed)
    outputs.write_image(name, mosaic(
        images, f'{len(images)} samples of {loader} as they are fed'))
    print(f'{outputs.folder / name} shows {len(images)} samples')


if __name__ == '__main__':
    main()
