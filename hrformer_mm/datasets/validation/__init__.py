# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check annotations and images before a training meets them."""
