# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Measurements that take longer than a test; not part of the wheel."""
