# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert a checkpoint file to another layout, or publish it."""
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.arch import get_arch
from ..core.hrformer import HRFormer
from ..version import __version__
from .baselines import FROM_OURS
from .convert import (
    MARK,
    ConversionReport,
    StateDict,
    convert,
    first_few,
    unwrap,
)
from .download import sha256
from .files import PathLike, find_file, read_checkpoint, write_checkpoint
from .infer_arch import arch_name, infer_arguments
from .keymap import BACKBONE, LAYOUTS, TABLE
from .loading import backbone_of, select_tensors


def convert_file(source: PathLike,
                 target: PathLike,
                 to: str = 'ours',
                 arch: str | None = None,
                 key: str | None = None,
                 prefix: str = '',
                 check: bool = False,
                 force: bool = False) -> ConversionReport:
    """Convert a checkpoint file to the layout of another code base.

    Args:
        source: Path, name or URL, see :func:`find_file`.
        target: ``.pth`` or ``.safetensors`` file to write.
        to: Layout of the target.
        arch: Expected size of the network; required if neither names nor
            shapes determine the number of heads.
        key: Entry of the source that holds the tensors, if several do.
        prefix: Key prefix of the model to convert, if there are several.
        check: Read the target back and compare it with the source, see
            :func:`check_target`.
        force: Overwrite an existing target.

    Raises:
        ValueError: If the source is not an HRFormer checkpoint, is of another
            size, or the check fails.
        FileNotFoundError: If the source is not found.
        FileExistsError: If the target exists and ``force`` is not given.
    """
    path = find_file(source)
    checkpoint = read_checkpoint(path)  # a copy would lose its metadata
    if key is not None:
        checkpoint = {**checkpoint, 'state_dict': unwrap(checkpoint, key)}
    ours, report = convert(checkpoint, prefix=prefix)
    args = {**infer_arguments(ours, arch), **report.semantics}
    del ours  # joined projections are copies
    tensors, report = convert(checkpoint, to, arch=args['arch'], prefix=prefix)
    if arch is not None and args['arch'] != get_arch(arch):
        raise ValueError(f'{path.name} is not of size {arch!r} but '
                         f'{arch_name(args["arch"])}')
    meta = dict(checkpoint.get('meta') or {})
    meta[MARK] = dict(
        facts(args, report.semantics),
        layout=to,
        source=dict(file=path.name, sha256=sha256(path), layout=report.source))
    container = LAYOUTS[to].container
    if not container and Path(target).suffix != '.safetensors':
        write_checkpoint(tensors, target, force)  # their code reads no meta
    else:
        write_checkpoint({
            container or 'state_dict': tensors,
            'meta': meta
        }, target, force)
    del tensors
    if check:
        before, _ = convert(checkpoint, prefix=prefix)
        if to in FROM_OURS:  # some round, as biases are moved into means
            before, _ = convert(convert(checkpoint, to, prefix=prefix)[0])
        check_target(target, before, args)
    return report


def other_semantics(report: ConversionReport, to: str) -> dict[str, Any]:
    """Return the semantics of a layout that differ from the weights'."""
    there = LAYOUTS[to].semantics(report.hrnet)
    return {
        k: there[k]
        for k, v in report.semantics.items() if k in there and there[k] != v
    }


def facts(args: Mapping[str, Any], semantics: Mapping[str, Any]) -> dict:
    """Return the description of a network for the meta; plain values."""
    return dict(
        version=__version__,
        arch=arch_name(args['arch']),
        window_size=list(args.get('window_size', ())),
        out_indices=list(args['out_indices']),
        truths=dict(semantics))


def check_target(target: PathLike, before: StateDict, args: Mapping[str, Any]):
    """Compare a converted file with its source in our layout.

    Converted back, all tensors must be bitwise equal, and they must fill a
    backbone. Bias tables without effect may be absent or zero.

    Raises:
        ValueError: If tensors differ; the message names them.
        RuntimeError: If the backbone is incomplete.
    """
    after, report = convert(read_checkpoint(target))
    if not args.get('rel_pos_bias', True):
        before, after = drop_tables(before), drop_tables(after)
    wrong = [
        k for k in after
        if k not in before or not torch.equal(before[k], after[k])
    ]
    wrong += [k for k in before if k not in after and k.startswith(BACKBONE)]
    if wrong:
        raise ValueError(f'{target} differs from its source in {len(wrong)} '
                         f'tensors{first_few(wrong)}')
    with torch.device('meta'):
        backbone = HRFormer(**args)
    select_tensors(backbone_of(after), backbone, report, strict=True)


def drop_tables(state_dict: StateDict) -> StateDict:
    return {k: v for k, v in state_dict.items() if not k.endswith(TABLE)}


def publish(source: PathLike,
            target: PathLike,
            config: PathLike | None = None,
            metrics: Mapping[str, float] | None = None,
            commit: str | None = None,
            force: bool = False) -> Path:
    """Strip a training checkpoint for release.

    Only weights are kept, the averaged ones (EMA) if there are any. The meta
    keeps the config, what evaluation and inference need, and the origin.

    Args:
        source: Checkpoint of mmengine's Runner.
        target: File to write; eight digits of its hash are added to the name.
        config: Config to store instead of the one stored in training.
        metrics: Results of the weights. Default: those stored in a file
            called ``best_*``.
        commit: Commit of the training code. Default: that of the checkout.
        force: Overwrite an existing file.

    Returns:
        Path of the written file.

    Raises:
        ValueError: If the source is not an HRFormer checkpoint or is unsafe.
        FileExistsError: If the file exists and ``force`` is not given.
    """
    target, path = Path(target), find_file(source)
    checkpoint = read_checkpoint(path)
    tensors, report = convert(checkpoint)
    meta = {
        k: v
        for k, v in (checkpoint.get('meta') or {}).items()
        if k not in ('experiment_name', 'time')
    }
    if config is not None:
        from mmengine.config import Config

        from ..utils.config import name_types
        meta['cfg'] = name_types(Config.fromfile(config)).pretty_text
    if metrics is None and path.name.startswith('best_'):
        metrics = last_metrics(checkpoint)
    meta[MARK] = dict(
        facts({
            **infer_arguments(tensors),
            **report.semantics
        }, report.semantics),
        commit=commit or current_commit() or 'unknown',
        metrics=dict(metrics or {}))
    temporary = target.with_name(f'.{os.getpid()}.{target.name}')
    try:
        write_checkpoint(dict(meta=meta, state_dict=tensors), temporary)
        name = f'{target.stem}-{sha256(temporary)[:8]}{target.suffix}'
        final = target.with_name(name)
        if final.exists() and not force:
            raise FileExistsError(
                f'{final} is already there; --force replaces it')
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    return final


def last_metrics(checkpoint: Mapping) -> dict[str, float]:
    """Return the results of the last evaluation before a checkpoint.

    They belong to its weights if it was saved as the best checkpoint.
    """
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    return {
        k[len('val/'):]: float(v.current())
        for k, v in scalars.items()
        if k.startswith('val/') and not k.endswith('time')
    }


def current_commit() -> str | None:
    """Return the git commit of the package, if it runs from a checkout."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(['git', 'rev-parse', '--short=12', 'HEAD'],
                              cwd=here,
                              capture_output=True,
                              text=True)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
