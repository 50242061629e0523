# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Rows of the paper's tables, their configs and their cost."""
from ..utils.paths import root
from .rows import (
                   TABLES,
                   TASKS,
                   UNKNOWN,
                   Metrics,
                   Printed,
                   Row,
                   build_model,
                   config_files,
                   get_config,
                   input_size,
                   list_rows,
                   load_row,
)

__all__ = [
    'TABLES', 'TASKS', 'UNKNOWN', 'Metrics', 'Printed', 'Row', 'build_model',
    'config_files', 'get_config', 'input_size', 'list_rows', 'load_row', 'root'
]
