# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Trained networks made faster, and exported."""
from .optimize import optimize

__all__ = ['optimize']
