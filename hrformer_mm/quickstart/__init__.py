# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train, evaluate and draw an HRFormer in minutes on data made on the fly."""
