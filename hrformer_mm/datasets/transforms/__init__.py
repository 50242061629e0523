# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Transforms that the frameworks lack."""
