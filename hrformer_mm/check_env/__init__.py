# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Diagnose an installation: python -m hrformer_mm.check_env."""
