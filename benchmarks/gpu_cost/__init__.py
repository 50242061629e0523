# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predict the cost of networks on a GPU without one."""
