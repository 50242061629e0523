# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Transforms, synthetic datasets and the checks of dataset folders."""
