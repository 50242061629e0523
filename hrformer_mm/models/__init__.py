# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The OpenMMLab rim: registered classes and config words, no arithmetic."""
