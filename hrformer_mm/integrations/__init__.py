# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Ways to reach the models of this package from other packages."""
