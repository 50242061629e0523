# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Quickstart of classification: handwritten digits in ImageNet's layout."""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from numpy import ndarray

from ..engine.train import set_data_root
from ..visualization.figures import new_figure
from .runner import Quickstart, QuickstartResult
from .synthetic.digits import write_digits

SHOWN = (4, 8)  # rows and columns of images
READABLE = 30  # maximum number of classes to write counts into the matrix
RIGHT, WRONG = '#2a7f3f', '#c44e52'


class Predictions(NamedTuple):
    """Predictions of a model for all validation images."""
    paths: list[str]
    truth: ndarray  # [N], classes
    scores: ndarray  # [N, classes], probabilities
    names: list[str]  # of the classes


def classify(cfg: Config, checkpoint: str) -> Predictions:
    """Classify the validation images of a config."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmpretrain.apis import get_model
    init_default_scope(cfg.default_scope)
    model = get_model(cfg.copy(), checkpoint, device=get_device())
    loader = Runner.build_dataloader(
        dict(cfg.val_dataloader, num_workers=0, persistent_workers=False))
    with torch.no_grad():
        samples = [s for data in loader for s in model.val_step(data)]
    scores = np.stack([s.pred_score.cpu().numpy() for s in samples])
    names = loader.dataset.metainfo.get('classes') or range(scores.shape[1])
    return Predictions([s.img_path for s in samples],
                       np.array([int(s.gt_label) for s in samples]), scores,
                       [str(name) for name in names])


def draw_confusion(found: Predictions, path: Path):
    """Draw the confusion matrix."""
    classes = found.scores.shape[1]
    guess = found.scores.argmax(1)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (found.truth, guess), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = new_figure(6, 6)
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    top1 = 100 * (guess == found.truth).mean()
    axes.set(
        xlabel='predicted', ylabel='labelled',
        title=f'{len(guess)} held-out images, top-1 accuracy {top1:.1f} %')
    if classes <= READABLE:
        axes.set_xticks(range(classes), found.names, rotation=90 * any(
            len(name) > 3 for name in found.names))
        axes.set_yticks(range(classes), found.names)
        for i, j in zip(*np.nonzero(counts)):
            axes.text(j, i, counts[i, j], ha='center', va='center',
                      color='white' if shares[i, j] > .5 else 'black')
    figure.savefig(path)


def draw_images(found: Predictions, path: Path):
    """Draw images with predicted classes, least certain and wrong first."""
    import cv2
    sure = found.scores[np.arange(len(found.truth)), found.truth]
    order = np.argsort(sure, kind='stable')[:SHOWN[0] * SHOWN[1]]
    figure = new_figure(1.2 * SHOWN[1], 1.5 * SHOWN[0])
    figure.suptitle('the least certain of the held-out images')
    for axes in figure.subplots(*SHOWN).flat:
        axes.axis('off')
    for axes, i in zip(figure.axes, order):
        guess, truth = found.scores[i].argmax(), found.truth[i]
        title = f'{found.names[guess]}  {100 * found.scores[i, guess]:.0f} %'
        if guess != truth:
            title += f'\nis {found.names[truth]}'
        axes.imshow(cv2.imread(found.paths[i])[..., ::-1])
        axes.set_title(title, fontsize=9,
                       color=RIGHT if guess == truth else WRONG)
    figure.savefig(path)


def draw(cfg: Config, checkpoint: str, out_dir: Path) -> list[Path]:
    """Draw the confusion matrix and the least certain images."""
    found = classify(cfg, checkpoint)
    paths = [out_dir / 'confusion_matrix.png', out_dir / 'predictions.png']
    draw_confusion(found, paths[0])
    draw_images(found, paths[1])
    return paths


def use_data_root(cfg: Config, root: str):
    """Set the image folder and the number of classes of a config.

    If ``val`` has no class folders, as in ImageNet's archive, the labels are
    read from ``meta/train.txt`` and ``meta/val.txt``.

    Raises:
        ValueError: If ``train`` has fewer than two class folders.
    """
    set_data_root(cfg, root)
    names = folders(Path(root) / 'train')
    if len(names) < 2:
        raise ValueError(f'{root}/train must have a folder for each of at '
                         f'least two classes, but has {len(names)}')
    cfg.model.head.num_classes = len(names)
    cfg.model.data_preprocessor.num_classes = len(names)
    if not folders(Path(root) / 'val'):
        for part, loader in (('train', cfg.train_dataloader),
                             ('val', cfg.val_dataloader),
                             ('val', cfg.test_dataloader)):
            loader.dataset.ann_file = f'meta/{part}.txt'
            loader.dataset.metainfo = dict(classes=names)


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def next_commands(outcome: QuickstartResult) -> list[str]:
    """Return commands to evaluate, train longer and train on own data."""
    return [
        f'python tools/test.py {outcome.config} {outcome.checkpoint}',
        'python tools/train.py configs/cls/custom_folder.py '
        '--data-root /path/to/your/images',
        'bash tools/quickstart.sh --task cls '
        '--data-root /path/to/your/images',
    ]


TASK = Quickstart(
    name='cls',
    config='cls/hrformer_t_digits_64.py',
    metric='accuracy/top1',
    metric_label='top-1 accuracy',
    make_data=write_digits,
    images=(1198, 599),
    draw=draw,
    next_commands=next_commands,
    layout='an image folder: train/CLASS/ and val/CLASS/ with the images',
    needs=('train', 'val'),
    use_data_root=use_data_root)
