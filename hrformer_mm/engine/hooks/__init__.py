# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Hooks for reliable long runs: saving, resuming, stopping."""
