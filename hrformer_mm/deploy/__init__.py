# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Optimize trained networks for inference, and export them."""
from .optimize import optimize

__all__ = ['optimize']
