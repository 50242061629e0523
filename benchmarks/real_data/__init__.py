# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer, its ablations and HRNet on small real datasets."""
