# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer in plain PyTorch; imports torch and the standard library only."""
from .arch import ARCHS, Arch, get_arch
from .hrformer import HRFormer

__all__ = ['ARCHS', 'Arch', 'HRFormer', 'get_arch']
