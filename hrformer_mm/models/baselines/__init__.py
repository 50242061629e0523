# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Baselines that the paper compares HRFormer with."""
