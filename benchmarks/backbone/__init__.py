# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Backbones side by side: time, memory, and how far the machine's limit is."""
