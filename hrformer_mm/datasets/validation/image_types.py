# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find image files of types that a dataset does not read."""
import os
from collections import defaultdict
from typing import Dict, List, Sequence

from .common import Problem

# What cameras and tools write; case does not matter here.
IMAGES = ('.avif', '.bmp', '.dng', '.gif', '.heic', '.heif', '.jfif', '.jp2',
          '.jpe', '.jpeg', '.jpg', '.jxl', '.pbm', '.pgm', '.png', '.pnm',
          '.ppm', '.tga', '.tif', '.tiff', '.webp')  # yapf: disable


def other_images(folder: str,
                 ends: Sequence[str],
                 fix: str,
                 any_case: bool = False) -> List[Problem]:
    """Count images below a folder that do not end as the dataset asks.

    Args:
        folder: Folder to search, at any depth.
        ends: Endings of the files that are read.
        fix: What to do, to be read after the count.
        any_case: Whether case does not matter for the dataset.

    Returns:
        At most one finding, with the number of files of each type.
    """
    found: Dict[str, List[str]] = defaultdict(list)
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith('.')]
        for name in sorted(files):
            read = name.lower() if any_case else name
            suffix = os.path.splitext(name)[1]
            if suffix.lower() in IMAGES and not read.endswith(tuple(ends)):
                found[suffix].append(os.path.join(parent, name))
    if not found:
        return []
    total = sum(map(len, found.values()))
    types = ', '.join(f'{len(paths)} {suffix} (such as {paths[0]})'
                      for suffix, paths in sorted(found.items()))
    return [Problem(folder, f'holds {total} image{"s" * (total > 1)} that '
                    f'the dataset does not read: {types}; {fix}', False)]
