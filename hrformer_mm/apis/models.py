# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models by name: list them, build them, and find their released weights."""
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

from mmengine.config import Config, DictAction
from torch import nn

from .. import zoo
from ..checkpoints.files import (
    fetch_file,
    find_local,
    no_downloads,
    urls_of,
    weight_folders,
)
from ..checkpoints.loading import load_weights
from ..checkpoints.weights_index import Weights, weights_of
from ..engine.train import read_config
from ..utils.suggest import suggest


def list_models(pattern: str = '*',
                pretrained: bool = False) -> list[str]:
    """List the names of our models, which are those of their configs.

    Args:
        pattern: As in :mod:`fnmatch`, such as ``'*coco*'``; a text without
            wildcards matches anywhere in the name.
        pretrained: Keep those whose weights can be downloaded.
    """
    if not set(pattern) & set('*?['):
        pattern = f'*{pattern}*'
    names = sorted({Path(name).stem for name in zoo.config_files()})
    return [name for name in names if fnmatch(name, pattern) and (
        not pretrained or any(w.is_direct for w in weights_of(name)))]


def find_weights(cfg: Config) -> Path:
    """Find the released weights of a config, or download them.

    Options that the weights ask for, such as
    ``model.backbone.rel_pos_bias=False``, are set in the config.

    Raises:
        FileNotFoundError: If they have to be downloaded by hand; says where.
        ValueError: If no weights for the config are known.
    """
    name = Path(cfg.filename or '').stem
    known = weights_of(name)
    if not known:
        near = get_close_matches(name, list_models(pretrained=True), 3)
        raise ValueError(
            f'no released weights are known for {name!r}: pass a checkpoint'
            f'{suggest(near)}; hrformer-mm list --pretrained shows all')
    found = next(chain(local_files(known), download_released(known)), None)
    if found is None:
        places = '; '.join(f'{w.url}, saved as {w.name}' for w in known)
        raise FileNotFoundError(
            f'the weights of {name} are not on this machine and cannot be '
            f'downloaded{no_downloads()}: get one of {places} in '
            f"{' or '.join(map(str, weight_folders()[:2]))}")
    weights, path = found
    for option in weights.options.split():
        key, _, value = option.partition('=')
        cfg.merge_from_dict({key: DictAction._parse_iterable(value)})
    return path


def local_files(known: Sequence[Weights]) -> Iterator[tuple[Weights, Path]]:
    """Yield the files of released weights that are on this machine."""
    for weights in known:
        path = find_local(weights.name)
        if path:
            yield weights, path


def download_released(
        known: Sequence[Weights]) -> Iterator[tuple[Weights, Path]]:
    """Download released weights; yield those that can be downloaded."""
    for weights in known:
        path = fetch_file(urls_of(weights.name), weights.name)
        if path:
            yield weights, path


def get_model(name: str | Config,
              pretrained: bool | str | Path = False,
              device: str | None = None) -> nn.Module:
    """Build a model of MMPose, MMSegmentation or MMPretrain by its name.

    Args:
        name: Name or path of a config, or a config.
        pretrained: ``True`` loads the released weights, which are downloaded
            once; a path loads a checkpoint of any layout.
        device: Where to put the model (default: the CPU).

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If there are no weights for it, or they do not fit.
    """
    cfg = name if isinstance(name, Config) else read_config(str(name))
    path = find_weights(cfg) if pretrained is True else pretrained
    model = zoo.build_model(cfg, device or 'cpu')
    if path:
        load_weights(model, path)
    return model.eval()
