# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find checkpoint files, read them safely and write them atomically."""
import json
import os
import pickle
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.torch_version import TorchVersion

from ..compat.harmless import RestrictedPickle
from .convert import MARK
from .download import download, is_offline
from .weights_index import direct_urls, hash_of, pages_of, substitutes

WEIGHTS, MIRROR = 'HRFORMER_MM_WEIGHTS', 'HRFORMER_MM_MIRROR'
URL = re.compile(r'(https?|file)://')
PathLike = str | Path


def base_name(name: PathLike) -> str:
    """Return the file name of a path or URL."""
    text = str(name)
    return (text.partition('?')[0].rpartition('/')[2] if URL.match(text)
            else Path(text).name)


def places_of(name: PathLike) -> list[Path]:
    """Return the paths at which a file is searched."""
    own = [] if URL.match(str(name)) else [Path(name).expanduser()]
    return own + [folder / base_name(name) for folder in weight_folders()]


def find_local(name: PathLike) -> Path | None:
    """Find a file by its path, name or URL on this machine."""
    return next((p for p in places_of(name) if p.is_file()), None)


def urls_of(name: PathLike) -> list[str]:
    """Return the URLs at which a file is searched: own, mirror, released."""
    base = base_name(name)
    urls = [str(name)] if URL.match(str(name)) else []
    if os.environ.get(MIRROR):
        urls.append(f"{os.environ[MIRROR].rstrip('/')}/{base}")
    return urls + direct_urls(base)


def fetch_file(urls: Iterable[str], base: str) -> Path | None:
    """Download a file from the first URL that has it.

    Raises:
        ValueError: If none has it, and one has a file with another hash.
    """
    path, damaged = cache_folder() / base, None
    for url in urls:
        try:
            if download(url, path, hash_of(base)):
                return path
        except ValueError as error:
            damaged = error
    if damaged:
        raise damaged
    return None


def find_file(name: PathLike) -> Path:
    """Find a checkpoint file by path, name or URL, or download it.

    The path itself is tried first, then the name in ``./weights``, in the
    directory ``$HRFORMER_MM_WEIGHTS`` and in that of torch.hub. If none
    exists, the file is downloaded into the first of these two that is set,
    from the URL, the mirror ``$HRFORMER_MM_MIRROR`` or where it was released.
    In place of an official ImageNet checkpoint, which cannot be downloaded
    directly, MMPose's copy is used.

    Raises:
        FileNotFoundError: If it is not found; the message lists the places
            searched and the alternatives.
        ValueError: If a downloaded file has another hash than stated.
    """
    base, urls = base_name(name), urls_of(name)
    path = find_local(name) or fetch_file(urls, base)
    if path:
        return path
    for other in substitutes(base):
        with suppress(FileNotFoundError):
            path = find_file(other)
            print_log(f'{base} was not found; using {path}, which holds the '
                      'same network', 'current')
            return path
    looked = ', '.join([*map(str, places_of(name)), *urls])
    mirror = '' if os.environ.get(MIRROR) else f', ${MIRROR} is not set'
    pages = ', '.join(pages_of(base))
    source = f' (released at {pages})' if pages else ''
    raise FileNotFoundError(
        f'weights {base} not found (searched {looked}{mirror}){no_downloads()}'
        f': put the file{source} at one of these paths, or train from scratch '
        'with --cfg-options model.backbone.init_cfg=None')


def no_downloads() -> str:
    """Return a remark for errors if downloads are forbidden, else ''."""
    return ' while downloads are forbidden (--offline)' if is_offline() else ''


def cache_folder() -> Path:
    """Return the folder of downloads: ours if set, else that of torch.hub."""
    own = os.environ.get(WEIGHTS)
    return Path(own).expanduser() if own else hub_folder()


def hub_folder() -> Path:
    """Return the folder in which torch.hub, torchvision and timm download."""
    return Path(torch.hub.get_dir()) / 'checkpoints'


def weight_folders() -> list[Path]:
    """Return the folders in which checkpoints are searched by name."""
    return list(dict.fromkeys([Path('weights'), cache_folder(), hub_folder()]))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` on success.

    It has the same suffix, from which video writers infer the format.
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

    Only tensors and plain containers are read; no code in it is executed.

    Args:
        path: File to read.
        map_location: Device of the tensors, as in ``torch.load``.
        mmap: Map tensors of a ``.pth`` file into memory instead of reading
            them, for callers that need only the values beside them.

    Raises:
        ValueError: If it is not a checkpoint, is truncated, would run code,
            or declares more data than it holds.
        FileNotFoundError: If it does not exist.
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
    """Whether a file is in safetensors format, by its suffix or header."""
    if path.suffix == '.safetensors':
        return True
    with open(path, 'rb') as file:
        return file.read(9)[8:] == b'{'  # JSON after its length


def read_pickle(path: Path, map_location: Any, mmap: bool = False) -> Any:
    """Read a pickle with ``weights_only``; raise one-line errors."""
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


def protection() -> dict[str, Any]:
    """Return arguments of ``torch.load`` that restrict it to safe types.

    torch < 2.6 has no allow list to which these types could be added.
    """
    if TorchVersion(torch.__version__) >= '2.6':
        return dict(weights_only=True)
    return dict(weights_only=False, pickle_module=RestrictedPickle)


def check_zip(path: Path):
    """Reject archives that unpack to more than their size.

    Raises:
        ValueError: If one does, which PyTorch never writes, or it is
            truncated.
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
    """Yield all tensors of nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors_in(inner)


def check_sizes(checkpoint: Mapping, path: Path):
    """Reject tensors that are larger than their storage.

    Raises:
        ValueError: If one is, as copying it could exhaust the memory.
    """
    for tensor in tensors_in(checkpoint):
        if tensor.layout != torch.strided or (
                tensor.numel() * tensor.element_size()
                > tensor.untyped_storage().nbytes()):
            raise ValueError(f'{path} was refused: a tensor of shape '
                             f'{tuple(tensor.shape)} is not all there')


def read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    """Read tensors and meta into the same entries as those of a ``.pth``."""
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
    """Write a checkpoint file atomically.

    Args:
        checkpoint: Entries ``meta`` and one with tensors; a ``.safetensors``
            file supports no others.
        path: File to write; its suffix (``.pth`` or ``.safetensors``) selects
            the format.
        force: Overwrite an existing file.

    Raises:
        ValueError: If the suffix is another one.
        FileExistsError: If the file exists and ``force`` is not given.
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
            with open(temporary, 'wb') as file:  # a path would be stored, too
                torch.save(checkpoint, file)


def write_safetensors(checkpoint: Mapping, path: Path):
    """Write tensors without shared memory, and the meta as JSON."""
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
