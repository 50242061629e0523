# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Every HRFormer checkpoint there is, read as ours. (Being written.)"""


def match_state_dict(module, state_dict, prefix, *args):
    for key in [k for k in state_dict if k.startswith(prefix)
                and k.endswith('relative_position_index')]:
        del state_dict[key]


def load_pretrained(module, checkpoint, prefix=None, map_location='cpu'):
    raise NotImplementedError
