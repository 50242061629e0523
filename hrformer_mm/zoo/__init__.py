# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models with a config or a place in the paper's tables, and their cost."""
from ..utils.paths import root
from .entries import (
    TABLES,
    TASKS,
    UNKNOWN,
    Entry,
    Metrics,
    Printed,
    build_model,
    config_files,
    get_config,
    input_size,
    list_entries,
    load_entry,
)

Row, list_rows, load_row = Entry, list_entries, load_entry  # until 0.3
__all__ = [
    'TABLES', 'TASKS', 'UNKNOWN', 'Entry', 'Metrics', 'Printed', 'build_model',
    'config_files', 'get_config', 'input_size', 'list_entries', 'load_entry',
    'root'
]
