# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Loading into a model: the state-dict hooks and ``Pretrained``."""
from typing import Dict

from torch import Tensor

from .convert import convert, interpolate_table
from .keymap import BACKBONE, INDEX, TABLE


def match_state_dict(module, state_dict: Dict[str, Tensor], prefix: str,
                     *args):
    """Load hook of a backbone: any layout becomes the module's own."""
    found = {k: state_dict[k] for k in list(state_dict)
             if k.startswith(prefix)}
    if not found:
        return
    inside = {k[len(prefix):]: v for k, v in found.items()}
    ours, _ = convert(inside)
    own = module.state_dict()
    for key in found:
        del state_dict[key]
    for key, value in ours.items():
        name = key[len(BACKBONE):]
        if key.startswith(BACKBONE) and name in own:
            if name.endswith(TABLE) and len(value) != len(own[name]):
                window = (int(len(own[name])**.5) + 1) // 2
                value = interpolate_table(value, window)
            state_dict[prefix + name] = value


def load_pretrained(module, checkpoint, prefix=None, map_location='cpu'):
    raise NotImplementedError
