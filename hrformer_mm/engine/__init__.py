# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Training with MMEngine: runs, hooks, optimizers and several processes."""
