# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Hooks that keep long runs safe: saving, resuming, stopping."""
