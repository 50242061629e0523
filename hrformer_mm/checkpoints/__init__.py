# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Every HRFormer checkpoint there is, read as ours and written as theirs."""
from .convert import Report, convert, interpolate_table
from .loading import load_pretrained, match_state_dict

__all__ = [
    'Report', 'convert', 'interpolate_table', 'load_pretrained',
    'match_state_dict'
]
