# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Helpers shared by all packages; they depend on no model and no task."""
