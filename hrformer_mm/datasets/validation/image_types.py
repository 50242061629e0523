# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find image files of types that a dataset does not read."""
import os
from collections import defaultdict
from collections.abc import Sequence

from .common import Problem

# Suffixes that cameras and tools write, in lower case.
IMAGES = ('.avif', '.bmp', '.dng', '.gif', '.heic', '.heif', '.jfif', '.jp2',
          '.jpe', '.jpeg', '.jpg', '.jxl', '.pbm', '.pgm', '.png', '.pnm',
          '.ppm', '.tga', '.tif', '.tiff', '.webp')  # yapf: disable


def other_images(folder: str,
                 ends: Sequence[str],
                 fix: str,
                 any_case: bool = False) -> list[Problem]:
    """Count the images below a folder whose suffix the dataset does not read.

    Args:
        folder: Folder to search recursively.
        ends: Suffixes of the files that are read.
        fix: Recommended action, printed after the count.
        any_case: Whether the dataset ignores the case of suffixes.

    Returns:
        At most one warning, with the number of files of each type.
    """
    found: dict[str, list[str]] = defaultdict(list)
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
