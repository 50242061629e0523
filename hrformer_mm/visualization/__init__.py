# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw predictions, figures and training curves."""
