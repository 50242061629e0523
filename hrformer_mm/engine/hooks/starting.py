# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find the checkpoint to start or to resume from."""
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoints.files import read_checkpoint
from ...utils.io import read_text

STATE = 'hrformer_mm_data'  # key of our state in checkpoints
START = 'start_from'  # config key for load_from of a run that may resume
Progress = tuple[int, int, int, int]
NOTHING: Progress = (-1, -1, -1, -1)


def missing_state(checkpoint: Mapping) -> list[str]:
    """List the parts that a checkpoint lacks to be resumed from."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    needed = {
        'weights': 'state_dict' in checkpoint,
        'optimizer state': 'optimizer' in checkpoint,
        'epoch and iteration': {'epoch', 'iter'} <= {*meta},
        'message hub': 'message_hub' in checkpoint,
    }
    return [name for name, is_there in needed.items() if not is_there]


def check_resumable(checkpoint: Mapping, path: Any):
    """Check that a checkpoint contains the training state.

    Raises:
        ValueError: If it does not. Names the missing parts and alternatives.
    """
    missing = missing_state(checkpoint)
    if missing:
        raise ValueError(
            f"cannot resume from {path}: it has no {', no '.join(missing)} "
            '(like best_*.pth and published checkpoints); resume from '
            'epoch_*.pth, iter_*.pth or interrupted.pth, or start a new '
            f'training from its weights with --cfg-options load_from={path}')


def check_resume_path(path: str):
    """Check that a path can be resumed from, before anything slow.

    Raises:
        ValueError: If it is a directory or a file without training state.
    """
    if os.path.isdir(path):
        raise ValueError(
            f'cannot resume from {path}: it is a directory; pass one of its '
            f'checkpoint files, or use --work-dir {path} --resume for the '
            'last one of a work dir')
    if '://' not in path:
        check_resumable(read_checkpoint(path, mmap=True), path)


def progress(path: Path) -> Progress:
    """Return the progress of a checkpoint as a tuple to compare.

    Epochs or passes come first, then samples, because iterations are not
    comparable if the number of processes has changed.
    """
    try:
        checkpoint = read_checkpoint(path, mmap=True)
        meta, state = checkpoint['meta'], checkpoint.get(STATE, {})
        return (int(meta['epoch']), int(state.get('passes', 0)),
                int(state.get('draws', 0)), int(meta['iter']))
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return NOTHING


def pointed_at(folder: Path) -> Path | None:
    """Return the checkpoint that ``last_checkpoint`` names, if it exists.

    A file of that name in the folder itself takes precedence, as the work dir
    may be a copy of another one that still exists.
    """
    pointer = folder / 'last_checkpoint'
    named = read_text(pointer).strip() if pointer.is_file() else ''
    if not named:
        return None
    places = [folder / Path(named).name, Path(named)]
    return next((place for place in places if place.exists()), None)


def candidates(work_dir: str) -> list[Path]:
    """List checkpoints to resume from, in order of preference.

    The first one is named by ``last_checkpoint``. The others are sorted by
    progress, as copying changes file times. ``best_*.pth`` are not listed, as
    they have no optimizer state.
    """
    folder = Path(work_dir)
    files = [p for p in folder.glob('*.pth')
             if not p.name.startswith(('best_', '.'))]
    order = {p: (progress(p), p.stat().st_mtime) for p in files}
    files.sort(key=lambda p: order[p], reverse=True)
    named = pointed_at(folder)
    if named is None:
        return files
    return [named, *(p for p in files if p != named)]


def newest_checkpoint(work_dir: str, logger: Any) -> str | None:
    """Return the first of :func:`candidates` that can be resumed from.

    Raises:
        ValueError: If there are candidates, but none can be used.
    """
    named = pointed_at(Path(work_dir))
    if named is not None and not why_not(named):
        return str(named)
    paths, found = candidates(work_dir), None
    for path in paths:
        reason = why_not(path)
        if reason:
            logger.warning(f'not resumed from: {reason}')
        elif found is None:
            found = str(path)
    if paths and found is None:
        raise ValueError(
            f'none of the checkpoints in {work_dir} can be resumed from; '
            'without --resume a new training starts')
    return found


def why_not(path: Path) -> str:
    """Return the reason why a file cannot be resumed from, or ''."""
    if path.is_dir():  # written by a strategy, one file per process
        return ''
    try:
        missing = missing_state(read_checkpoint(path, mmap=True))
    except ValueError as error:
        return str(error)
    return f"{path} has no {', no '.join(missing)}" if missing else ''
