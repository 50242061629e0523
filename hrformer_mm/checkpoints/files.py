# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoint files: found, read without running code, written whole."""
import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
import urllib.request
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Union
from urllib.error import URLError

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from ..compat.harmless import RestrictedPickle
from .convert import MARK
from .weights_index import page_of

WEIGHTS, MIRROR = 'HRFORMER_MM_WEIGHTS', 'HRFORMER_MM_MIRROR'
URL = re.compile(r'(https?|file)://')
PathLike = Union[str, Path]


def find_file(name: PathLike) -> Path:
    """The file of a checkpoint, given its path, its name or its URL.

    Looks at the path itself, then for the name in ``./weights`` and in the
    directory ``$HRFORMER_MM_WEIGHTS``, and only then downloads it into one of
    these, from the URL or from the mirror ``$HRFORMER_MM_MIRROR``.

    Raises:
        FileNotFoundError: Says where it was looked for and the ways out.
    """
    is_url = bool(URL.match(str(name)))
    base = str(name).rpartition('/')[2] if is_url else Path(name).name
    places = [] if is_url else [Path(name).expanduser()]
    places += [folder / base for folder in weight_folders()]
    for place in places:
        if place.is_file():
            return place
    urls = [str(name)] if is_url else []
    if os.environ.get(MIRROR):
        urls.append(f"{os.environ[MIRROR].rstrip('/')}/{base}")
    for url in urls:
        path = weight_folders()[-1] / base
        if download(url, path):
            return path
    looked = ', '.join([str(p) for p in places] + urls)
    mirror = '' if os.environ.get(MIRROR) else f', ${MIRROR} is not set'
    page = page_of(base)
    source = f' (released at {page})' if page else ''
    raise FileNotFoundError(
        f'weights {base} are not there (looked at {looked}{mirror}): put the '
        f'file{source} at one of these paths, or train from scratch with '
        '--cfg-options model.backbone.init_cfg=None')


def weight_folders() -> List[Path]:
    folders = [Path('weights')]
    if os.environ.get(WEIGHTS):
        folders.append(Path(os.environ[WEIGHTS]).expanduser())
    return folders


def download(url: str, path: Path) -> bool:
    """Fetch a file whole, or not at all if it is not there.

    Raises:
        ValueError: If it is cut off, or its name carries a hash that its
            content has not.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as source:
            with replacing(path) as temporary:
                with open(temporary, 'wb') as file:
                    shutil.copyfileobj(source, file)
                length = source.headers.get('Content-Length')
                if length and int(length) != temporary.stat().st_size:
                    raise ValueError(f'{url} was cut off; try again')
                check_hash(path.name, temporary)
    except (URLError, HTTPException, ConnectionError, TimeoutError):
        return False
    return True


def sha256(path: PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def check_hash(name: str, path: PathLike):
    """Hold a file against the hash in its name, as OpenMMLab writes it.

    Raises:
        ValueError: If it is another one. A name without hash passes.
    """
    match = re.search(r'-([0-9a-f]{8})(_\d{8})?\.(pth|safetensors)$', name)
    if match and not sha256(path).startswith(match[1]):
        raise ValueError(f'{name} is damaged: its sha256 begins with '
                         f'{sha256(path)[:8]}')


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place at the end.

    It has the same ending, from which writers of videos see the format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent,
        prefix=f'.{path.name}.{os.getpid()}-',  # the writer
        suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's are private
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def read_checkpoint(path: PathLike,
                    map_location: Any = 'cpu',
                    mmap: bool = False) -> Mapping:
    """Read a ``.pth`` or ``.safetensors`` file.

    Only tensors and plain containers are read: nothing in the file is run.

    Args:
        path: File to read.
        map_location: Device of the tensors, as in ``torch.load``.
        mmap: Map tensors of a ``.pth`` file into memory instead of reading
            them, for callers that need only the values beside them.

    Raises:
        ValueError: In one line, if it is no checkpoint, is cut off, wants to
            run code, or claims more than it holds.
        FileNotFoundError: If it is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file')
    if is_safetensors(path):
        checkpoint: Any = read_safetensors(path, map_location)
    else:
        checkpoint = read_pickle(path, map_location, mmap)
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path} is not a checkpoint: it holds one '
                         f'{type(checkpoint).__name__}')
    check_sizes(checkpoint, path)
    return checkpoint


def is_safetensors(path: Path) -> bool:
    """By the header, which is JSON behind its length."""
    if path.suffix == '.safetensors':
        return True
    with open(path, 'rb') as file:
        return file.read(9)[8:] == b'{'


def read_pickle(path: Path, map_location: Any, mmap: bool = False) -> Any:
    """Read with ``weights_only``, errors in one line."""
    with open(path, 'rb') as file:
        is_zip = file.read(2) == b'PK'
    if is_zip:
        check_zip(path)
    try:
        return torch.load(
            path,
            map_location=map_location,
            mmap=mmap and is_zip,  # older files cannot be mapped
            **protection())
    except Exception as error:  # a damaged pickle can raise anything
        if isinstance(error, MemoryError):
            raise
        found = re.search(r'GLOBAL ([\w.]+)', str(error))
        if isinstance(error, pickle.UnpicklingError) and found:
            raise ValueError(
                f'{path} was refused: it holds {found[1]}, not only tensors '
                'and plain values, and reading that could run code') from None
        raise ValueError(f'{path} is cut off or is not a checkpoint '
                         f'({type(error).__name__})') from None


def protection() -> Dict[str, Any]:
    """Arguments of ``torch.load`` that let it read harmless types only.

    torch < 2.6 has no list to which the types could be added.
    """
    if TorchVersion(torch.__version__) >= '2.6':
        return dict(weights_only=True)
    return dict(weights_only=False, pickle_module=RestrictedPickle)


def check_zip(path: Path):
    """Refuse archives that unpack to more than their size.

    Raises:
        ValueError: If one does, as PyTorch's never do, or its end is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        raise ValueError(f'{path} is cut off: the end is missing') from None
    if unpacked > path.stat().st_size:
        raise ValueError(f'{path} was refused: {path.stat().st_size} bytes '
                         f'that claim to hold {unpacked}')


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors_in(inner)


def check_sizes(checkpoint: Mapping, path: Path):
    """Refuse tensors that are larger than their memory.

    Raises:
        ValueError: If one is; copying it would fill the machine.
    """
    for tensor in tensors_in(checkpoint):
        if tensor.layout != torch.strided or (
                tensor.numel() * tensor.element_size()
                > tensor.untyped_storage().nbytes()):
            raise ValueError(f'{path} was refused: a tensor of shape '
                             f'{tuple(tensor.shape)} is not all there')


def read_safetensors(path: Path, map_location: Any) -> Dict[str, Any]:
    """Tensors and meta of a file, in the entries of a ``.pth``."""
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework='pt') as file:
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
            tensors = OrderedDict((k, file.get_tensor(k)) for k in file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f'{path} is cut off or is not a checkpoint: {error}') from None
    if isinstance(map_location, (str, torch.device)):
        tensors = OrderedDict(
            (k, v.to(map_location)) for k, v in tensors.items())
    if MARK in meta:
        tensors._metadata = {  # type: ignore[attr-defined]
            'backbone': {
                MARK: dict(meta[MARK].get('truths', {}))
            }
        }
    return dict(state_dict=tensors, meta=meta)


def write_checkpoint(checkpoint: Mapping, path: PathLike, force: bool = False):
    """Write a file whole, or not at all.

    Args:
        checkpoint: Entries ``meta`` and one of tensors; a ``.safetensors``
            file takes no others.
        path: Ends in ``.pth`` or ``.safetensors``, which decides the format.
        force: Replace a file that is there.

    Raises:
        ValueError: For another ending.
        FileExistsError: If there is one and ``force`` is not given.
    """
    path = Path(path)
    if path.suffix not in ('.pth', '.pt', '.safetensors'):
        raise ValueError(f'{path} must end in .pth or .safetensors')
    if path.exists() and not force:
        raise FileExistsError(f'{path} is already there; --force replaces it')
    with replacing(path) as temporary:
        if path.suffix == '.safetensors':
            write_safetensors(checkpoint, temporary)
        else:
            with open(temporary, 'wb') as file:  # or the name is stored, too
                torch.save(checkpoint, file)


def write_safetensors(checkpoint: Mapping, path: Path):
    """Tensors in memory of their own, and the meta as JSON."""
    from safetensors.torch import save_file
    tensors = next(v for k, v in checkpoint.items() if k != 'meta')
    seen, alone = set(), {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        own = tensor.clone() if memory in seen else tensor
        alone[name] = own.contiguous()
        seen.add(memory)
    meta = json.dumps(checkpoint.get('meta', {}), default=str)
    save_file(alone, path, metadata=dict(format='pt', meta=meta))
