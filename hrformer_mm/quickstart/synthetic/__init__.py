# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw labelled people, scenes and digits in the formats of real data."""
