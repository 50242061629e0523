# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train, evaluate and visualize an HRFormer in minutes on generated data."""
