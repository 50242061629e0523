# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The methods that the paper compares HRFormer with."""
