# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What the quickstarts of all tasks share; a task says only what differs."""
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from mmengine.config import Config

from ..training import set_data_root


@dataclass(frozen=True)
class Outcome:
    """What a quickstart leaves behind."""
    config: Path  # dumped, self-contained, with the data that was used
    checkpoint: Path
    work_dir: Path
    metrics: dict  # of the last evaluation, by name as in ``Task.metric``
    pictures: List[Path]
    data_root: Path


@dataclass(frozen=True)
class Task:
    """One quickstart.

    Attributes:
        name: pose, seg or cls.
        config: The row, below ``configs``. It has ``data_root`` at its top
            level, in the layout that the task's real data set has.
        metric: Name of the figure to report, as the evaluator gives it
            (``'coco/AP'``, ``'mIoU'``, ``'accuracy/top1'``).
        metric_label: What to call it in pictures and in the summary.
        make_data: ``make_data(root, train, val, seed)`` writes that many
            images, in the layout of the real data set, into the empty folder
            ``root``. It need not care for interruptions: the folder is put
            in place when it is complete.
        images: How many to make for training and for validation.
        draw: ``draw(cfg, checkpoint, out_dir)`` writes PNGs of predictions on
            validation images and gives their paths. ``cfg`` is what was
            trained, its data in place.
        next_commands: ``next_commands(outcome)`` gives three commands to try.
        layout: Files and folders that a real ``data_root`` must have, in
            words; shown by ``--help`` and in errors.
        needs: The paths below a real ``data_root`` to check for.
        data_version: Raise it when ``make_data`` gives other data than
            before, so that an old data set is not taken for the new one.
        use_data_root: ``use_data_root(cfg, root)`` moves the config to a real
            data set and adapts what depends on it, such as classes.
    """
    name: str
    config: str
    metric: str
    metric_label: str
    make_data: Callable[[Path, int, int, int], None]
    images: Tuple[int, int]
    draw: Callable[[Config, str, Path], List[Path]]
    next_commands: Callable[[Outcome], List[str]]
    layout: str
    needs: Tuple[str, ...]
    data_version: int = 1
    use_data_root: Callable[[Config, str], None] = set_data_root


def run(task: Task,
        data_root: Optional[str] = None,
        work_dir: Optional[str] = None,
        epochs: Optional[int] = None,
        images: Optional[Tuple[int, int]] = None,
        seed: int = 0,
        cfg_options: Optional[dict] = None) -> Outcome:
    """Make data, train, evaluate, draw and tell what came of it.

    Args:
        data_root: A real data set instead of the synthetic one.
        work_dir: Default ``work_dirs/quickstart_<task>``. An interrupted
            quickstart is resumed; a finished one is kept and a folder with
            the next free number is taken.
        epochs: Instead of the config's; for a config in iterations too,
            these are passes over the training images.
        images: Instead of ``task.images``.
        seed: Of data and training.
        cfg_options: Merged into the config last.

    Raises:
        ValueError: If the data is not as the task needs it; says how.
    """
    raise NotImplementedError
