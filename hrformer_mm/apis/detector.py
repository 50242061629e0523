# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Objects found by a detector of torchvision or of MMDetection."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoints.files import (
    fetch_file,
    find_local,
    no_downloads,
    read_checkpoint,
    urls_of,
)
from ..utils.cli import one_line
from ..utils.paths import configs_by_name
from ..utils.suggest import did_you_mean
from .boxes import (
    BoxSource,
    BoxTable,
    CountingSource,
    FrameBoxes,
    WholeImage,
    read_boxes,
)
from .categories import PERSON, Categories
from .det import DetPredictor
from .inputs import Frame

DETECTOR = 'fasterrcnn_resnet50_fpn_v2'


def list_detectors() -> list[str]:
    """Return the names of torchvision's detectors."""
    from torchvision.models import detection, list_models
    return list_models(module=detection)


def weights_url(name: str) -> str:
    """Return the URL of torchvision's weights of a detector.

    Raises:
        ValueError: If torchvision has no such detector.
    """
    from torchvision.models import get_model_weights
    if name.endswith('.py') or name in configs_by_name():
        raise ValueError(f'the detector {name} is a config, which needs its '
                         f'weights: --detector {name} WEIGHTS')
    known = list_detectors()
    if name not in known:
        raise ValueError(
            f'torchvision has no detector {name!r}'
            f"{did_you_mean(name, known) or '; it has ' + ', '.join(known)}")
    return get_model_weights(name).DEFAULT.url


def find_detector(name: str) -> Path:
    """Find the weights of a detector, or download them as torchvision does.

    Raises:
        FileNotFoundError: If they can be neither found nor downloaded.
        ValueError: If torchvision has no such detector, or the download has
            another hash than its name says.
    """
    url = weights_url(name)
    file = url.rpartition('/')[2]
    # A mirror that was set comes first.
    path = find_local(file) or fetch_file([*urls_of(file), url], file)
    if path is None:
        raise FileNotFoundError(
            f'the weights of the detector {name} are not on this machine and '
            f'cannot be downloaded{no_downloads()} from {url}')
    return path


def detected_labels(name: str, categories: Categories) -> set[int]:
    """Return the labels of a detector that match a model's categories.

    Raises:
        ValueError: If the detector has none of them, or is unknown.
    """
    weights_url(name)
    from torchvision.models import get_model_weights
    names = get_model_weights(name).DEFAULT.meta['categories']
    return select_labels(
        name, {i: word for i, word in enumerate(names)
               if word not in ('__background__', 'N/A', 'no person')},
        categories)  # yapf: disable


def select_labels(detector: str, names: dict[int, str],
                  categories: Categories) -> set[int]:
    """Return the labels of a detector that match a model's categories.

    Args:
        detector: Name of the detector, for the error.
        names: Name of each of its labels.
        categories: Decides which objects count.

    Raises:
        ValueError: If the detector has none of them.
    """
    present = {label: dict(name=name) for label, name in names.items()}
    categories.seen.update(present)
    if categories.is_person and not categories.chosen:
        people = {label for label, name in names.items() if name == 'person'}
        if people:
            return people
    found = categories.select(present)
    if found == set(present) and len(found) > 1:  # none has a name of ours
        raise ValueError(
            f'{detector} detects {sorted(names.values())[:9]}, which are not '
            'the classes of this model; select classes with '
            '--box-categories, or use boxes of another detector with --boxes '
            'FILE')
    return found


class Detector(CountingSource):
    """Objects found by a detector of torchvision.

    Args:
        name: Name of the detector in torchvision.
        device: Device that it runs on.
        threshold: Minimum score.
        categories: Decides which objects count; people by default.

    Raises:
        FileNotFoundError: If its weights cannot be found or downloaded.
        ValueError: If the detector has none of the categories, or is unknown.
    """

    def __init__(self,
                 name: str,
                 device: str,
                 threshold: float,
                 categories: Categories | None = None):
        from torchvision.models import get_model
        super().__init__(threshold)
        self.labels = {PERSON} if categories is None else detected_labels(
            name, categories)
        path = find_detector(name)
        self.model = get_model(name, weights=None, weights_backbone=None)
        self.model.load_state_dict(read_checkpoint(path))
        self.model.to(device).eval()
        self.words, self.device = name, device

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> FrameBoxes:
        image = torch.from_numpy(frame.image[..., ::-1].copy())
        image = image.permute(2, 0, 1).to(self.device) / 255  # [3, H, W]
        found = {k: v.cpu().numpy() for k, v in self.model([image])[0].items()}
        chosen = np.isin(found['labels'], list(self.labels))
        x1, y1, x2, y2 = found['boxes'][chosen].T
        rows = np.stack([x1, y1, x2 - x1, y2 - y1, found['scores'][chosen]], 1)
        return self.make(rows.tolist(), found['labels'][chosen].tolist())


class ConfigDetector(CountingSource):
    """Objects found by a detector of MMDetection, with any backbone.

    Args:
        config: Path or name of its config.
        weights: Path of its checkpoint.
        device: Device that it runs on.
        threshold: Minimum score.
        categories: Decides which objects count; people by default.

    Raises:
        FileNotFoundError: If its config or its weights are missing.
        ValueError: If the config is of another task, or the detector has none
            of the categories.
    """

    def __init__(self,
                 config: str,
                 weights: str,
                 device: str,
                 threshold: float,
                 categories: Categories | None = None):
        from ..engine.run_config import read_config
        from ..utils.config_checks import check_checkpoint
        super().__init__(threshold)
        cfg = read_config(config)
        if cfg.get('default_scope') != 'mmdet':
            raise ValueError(f'--detector {config} is no config of '
                             'MMDetection')
        check_checkpoint(weights)
        self.predictor = DetPredictor(cfg, weights, device)
        self.words = Path(config).stem
        names = dict(zip(self.predictor.ids, self.predictor.names))
        self.labels = select_labels(self.words, names,
                                    categories or Categories())

    def __call__(self, frame: Frame) -> FrameBoxes:
        (_, found), = self.predictor.run([frame])
        kinds = np.asarray(self.predictor.ids)[found.labels]
        chosen = np.isin(kinds, list(self.labels))
        x1, y1, x2, y2 = found.boxes[chosen].T
        rows = np.stack([x1, y1, x2 - x1, y2 - y1, found.scores[chosen]], 1)
        return self.make(rows.tolist(), kinds[chosen].tolist())


def choose_boxes(word: Any,
                 device: str,
                 threshold: float,
                 categories: Categories | None = None,
                 detector: str | Sequence[str] | None = None) -> BoxSource:
    """Return the source of boxes that ``--boxes`` selects.

    Args:
        word: ``whole``, ``detector``, the path of a JSON file, or ``auto``:
            the detector if it has the model's categories and its weights can
            be found or downloaded, otherwise the whole image. Also the
            content of a JSON file, or any :class:`BoxSource`.
        device: Device of the detector.
        threshold: Minimum score.
        categories: Decides which boxes count.
        detector: Name of a detector of torchvision, or config and weights of
            one of MMDetection.

    Raises:
        FileNotFoundError: If the file or the detector's weights are missing.
        ValueError: If the file has another format, or torchvision has no such
            detector.
    """
    if detector and word not in ('auto', 'detector'):
        name = detector if isinstance(detector, str) else ' '.join(detector)
        raise ValueError(f'--detector {name} is not used with --boxes {word}: '
                         'leave out one of them')
    if isinstance(word, BoxSource):
        return word
    if isinstance(word, os.PathLike):
        word = os.fspath(word)
    if not isinstance(word, str):
        return BoxTable(word, threshold, categories)
    if word == 'whole':
        return WholeImage()
    if word not in ('auto', 'detector'):
        return read_boxes(word, threshold, categories)
    if detector is not None and not isinstance(detector, str):
        config, weights = detector
        return ConfigDetector(config, weights, device, threshold, categories)
    if detector:
        weights_url(detector)
    try:
        return Detector(detector or DETECTOR, device, threshold, categories)
    except (OSError, ValueError, ImportError) as error:
        is_mistake = isinstance(error, ValueError) and bool(
            categories and categories.chosen)
        if word == 'detector' or is_mistake:
            raise
        return WholeImage(one_line(error))
