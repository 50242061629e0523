# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Helpers that every other package may use; they know no model and no task."""
