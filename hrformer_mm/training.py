# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What tools/train.py and tools/test.py do to a config before it runs."""
import os
from typing import Any

from mmengine.config import Config


def replace_prefix(value: Any, old: str, new: str) -> Any:
    """The nested value with all paths below ``old`` moved to ``new``."""
    if isinstance(value, str):
        moved = os.path.join(value, '').startswith(old)
        return os.path.join(new, value[len(old):]) if moved else value
    if isinstance(value, dict):
        return type(value)(
            (k, replace_prefix(v, old, new)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(replace_prefix(v, old, new) for v in value)
    return value


def set_data_root(cfg: Config, root: str):
    """Move a config from its ``data_root`` to another folder.

    A config computes paths from ``data_root`` while it is read, so setting
    that one key later has no effect; all paths below it are moved here.

    Raises:
        ValueError: If the config has no ``data_root`` at its top.
    """
    if not isinstance(cfg.get('data_root'), str):
        raise ValueError(f'{cfg.filename} has no data_root at its top level, '
                         'so its data cannot be moved; set the data_root of '
                         'each data loader with --cfg-options')
    old, new = os.path.join(cfg.data_root, ''), os.path.join(root, '')
    for key in list(cfg):
        cfg[key] = replace_prefix(cfg[key], old, new)
