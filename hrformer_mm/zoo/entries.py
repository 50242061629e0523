# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Rows of the paper's tables, their configs and published results.

``configs/<task>/metafile.yml`` have one entry for each config. They are
OpenMMLab metafiles (``Collections``, ``Models``), so ``mim`` and mmengine
read them, with separate blocks for each source of results. Example::

    Collections:
    - Name: HRFormer
      README: configs/pose/README.md
      Paper:
        Title: 'HRFormer: High-Resolution Transformer for Dense Prediction'
        URL: https://arxiv.org/abs/2110.09408

    Models:
    - Name: hrformer_b_coco_384x288        # the stem of Config
      In Collection: HRFormer
      Config: configs/pose/hrformer_b_coco_384x288.py
      Metadata:
        Parameters: 43211777               # exact; tests build and count
        FLOPs: 30453133512                 # multiply-adds of one input, too
        Training Data: COCO
      Results:
      - Task: Body 2D Keypoint
        Dataset: COCO
        Metrics: {}                        # measured by us with this config;
      Paper:                               # empty if nobody trained it
        Table 3:
          Row: HRFormer-B                  # the first column
          Input: 384x288
          Parameters: 43.2M                # as printed
          FLOPs: 26.8G
          Metrics: {AP: 77.2, AP50: 91.0, AP75: 83.6, AR: 82.0}
        Table 10: {Row: HRFormer-B, Metrics: {AP: 77.2}}
      Official:                            # README of the official code
        Source: pose/README.md
        Metrics: {AP: 77.2, AR: 82.0}
      ThirdParty:
      - By: MMPose 1.x
        Source: hrformer_coco.md
        Metrics: {AP: 77.4, AR: 82.3}

    Missing:                               # entries that have no config
    - Name: prtr_coco_384x288
      Reason: not written yet
      Paper:
        Table 3: {Row: PRTR, Input: 384x288, Metrics: unknown}

A metric we measured includes how it was measured::

      Results:
      - Task: Image Classification
        Dataset: ImageNet-1k
        Metrics: {Top 1 Accuracy: 78.4}
        Measured:
          Command: bash tools/dist_train.sh configs/cls/... 8
          Commit: 1a2b3c4
          Machine: 8x A100

Rules: the string ``unknown`` marks values that exist but could not be found,
also ``Metrics: unknown`` as a whole; absent values are omitted. Every block of
ours may have a ``Note``, which describes a discrepancy in one sentence.
Tasks are called ``Body 2D Keypoint`` (``Wholebody``, ``Hand``, ``Face``,
``Fashion``, ``Animal``), ``Semantic Segmentation``, ``Image Classification``
and ``Object Detection``; the paper's datasets ``COCO``, ``COCO test-dev``,
``Cityscapes``, ``PASCAL-Context``, ``COCO-Stuff``, ``ADE20K``,
``ImageNet-1k``; metrics ``AP``, ``AP50``, ``AP75``, ``APM``, ``APL``, ``AR``,
``mIoU``, ``mIoU (ms+flip)``, ``Top 1 Accuracy``, ``Top 5 Accuracy``. Accuracy
is in percent. Tables are ``Table 2`` to ``Table 11`` and ``Appendix``. If the
FLOPs of a table are not at the config's own input size, the entry has
``FLOPs at: 1024x1024`` (height x width).
"""
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.overrides import TorchFunctionMode

from ..tasks import NAMES
from ..utils.paths import root
from ..utils.suggest import did_you_mean

TASKS = NAMES
TABLES = tuple(f'Table {i}' for i in range(2, 12)) + ('Appendix', )
UNKNOWN = 'unknown'
Metrics = Mapping[str, float | str]
# Keys of OpenMMLab's schema that entries do not need.
IGNORED_KEYS = {'In Collection', 'Metadata', 'Code', 'README', 'Alias'}


@dataclass(frozen=True)
class Printed:
    """A row of one of the paper's tables, with numbers as printed."""
    row: str
    input: str = ''
    parameters: str = ''
    flops: str = ''
    flops_at: str = ''  # height x width, if not the input of the config
    metrics: Metrics | str = UNKNOWN
    note: str = ''


@dataclass(frozen=True)
class Reported:
    """Accuracy published by others."""
    source: str
    metrics: Metrics
    by: str = 'official code'
    note: str = ''


@dataclass(frozen=True)
class Measured:
    """How we measured a result."""
    command: str
    commit: str
    machine: str
    note: str = ''


@dataclass(frozen=True)
class Result:
    """Accuracy that we measured; ``metrics`` is empty if not measured yet."""
    task: str
    dataset: str
    metrics: Metrics
    measured: Measured | None = None


@dataclass(frozen=True)
class Entry:
    """An entry of the zoo: a config, or the reason why there is none."""
    name: str
    task: str  # pose, seg, cls or det
    paper: Mapping[str, Printed]  # by table
    config: str = ''  # below root(); empty if missing
    reason: str = ''  # why there is no config
    parameters: int | None = None
    flops: int | None = None  # multiply-adds for an input of the config
    results: tuple[Result, ...] = ()
    official: Reported | None = None
    third_party: tuple[Reported, ...] = ()
    weights: str | list[str] = ''

    @property
    def path(self) -> Path:
        """Return the path of the config."""
        return root() / self.config


def parse(kind: type, block: Any, where: str):
    """Create a dataclass from a block, whose keys are its fields as titles.

    Raises:
        ValueError: For unknown or missing keys, with the place.
    """
    if not isinstance(block, Mapping):
        raise ValueError(f'{where} must be a mapping, got {block!r}')
    names = {f.name: f.default is MISSING for f in fields(kind)}
    values = {k.lower().replace(' ', '_'): v for k, v in block.items()}
    unknown = sorted(set(values) - set(names))
    missing = sorted(n for n, needed in names.items()
                     if needed and n not in values)
    if unknown or missing:
        raise ValueError(f'{where} has the keys {sorted(names)}; unknown '
                         f'{unknown}, missing {missing}')
    return kind(**values)


def parse_result(block: Mapping, where: str) -> Result:
    """Parse an entry of ``Results``; its metrics require ``Measured``."""
    result = parse(Result, block, where)
    if result.metrics and result.measured is None:
        raise ValueError(f'{where} has metrics but does not say how they were '
                         'measured (Measured: Command, Commit, Machine)')
    how = result.measured and parse(Measured, result.measured,
                                    f'{where}: Measured')
    return Result(result.task, result.dataset, result.metrics, how)


def parse_paper(tables: Mapping[str, Mapping],
                where: str) -> dict[str, Printed]:
    """Parse the blocks of ``Paper``, by table."""
    wrong = sorted(set(tables) - set(TABLES))
    if wrong:
        raise ValueError(f'{where}: Paper names the tables {wrong}; there are '
                         f'{list(TABLES)}')
    return {
        table: parse(Printed, block, f'{where}: Paper: {table}')
        for table, block in tables.items()
    }


def parse_entry(entry: Mapping, task: str, where: str, key: str) -> Entry:
    """Parse an entry of ``Models`` or ``Missing``, as given by ``key``."""
    where = f"{where}: {entry.get('Name', 'an entry without Name')}"
    values = {k: v for k, v in entry.items() if k not in IGNORED_KEYS}
    if {'Config', 'Reason'} & set(values) != {key}:
        raise ValueError(f'{where} must have Config if it is one of Models, '
                         'Reason if it is Missing')
    if key == 'Config' and Path(values['Config']).stem != values['Name']:
        raise ValueError(f"{where} must be named as {values['Config']}")
    for name in ('Parameters', 'FLOPs'):
        values[name] = entry.get('Metadata', {}).get(name)
    values['Results'] = tuple(
        parse_result(r, f'{where}: Results')
        for r in values.get('Results', ()))
    values['Paper'] = parse_paper(values.get('Paper', {}), where)
    if 'Official' in values:
        values['Official'] = parse(Reported, values['Official'],
                                   f'{where}: Official')
    values['Third party'] = tuple(
        parse(Reported, r, f'{where}: ThirdParty')
        for r in values.pop('ThirdParty', ()))
    return parse(Entry, dict(values, Task=task), where)


@cache
def read_metafile(path: Path) -> tuple[Entry, ...]:
    """Read ``configs/<task>/metafile.yml``, entries without config last.

    Raises:
        ValueError: If an entry violates the schema; names the entry.
    """
    content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    task = path.parent.name
    return tuple(
        parse_entry(entry, task, f'{task}/{path.name}', key)
        for group, key in (('Models', 'Config'), ('Missing', 'Reason'))
        for entry in content.get(group, ()))


def list_entries(table: str | None = None,
                 task: str | None = None) -> list[Entry]:
    """List the entries of the zoo, in the order of the metafiles.

    Args:
        table: Only entries of this table of the paper, such as ``'Table 3'``.
        task: Only entries of ``'pose'``, ``'seg'``, ``'cls'`` or ``'det'``.

    Raises:
        ValueError: For an unknown table or task; lists the valid ones.
    """
    for name, value, choices in (('table', table, TABLES), ('task', task,
                                                            TASKS)):
        if value is not None and value not in choices:
            raise ValueError(
                f'{name} must be one of {list(choices)}, got {value!r}')
    files = [root() / 'configs' / t / 'metafile.yml'
             for t in TASKS if task in (None, t)]
    return [entry for path in files if path.exists()
            for entry in read_metafile(path)
            if table is None or table in entry.paper]


def config_files() -> list[str]:
    """List the configs of all entries, relative to :func:`root`.

    Templates for custom data (``custom_*``) are not included.
    """
    return [
        path.relative_to(root()).as_posix() for task in TASKS
        for path in sorted((root() / 'configs' / task).glob('*.py'))
        if not path.name.startswith('custom_')
    ]


def load_entry(name: str) -> Entry:
    """Return the entry of a model name or of the path of a config.

    Raises:
        ValueError: If there is none; suggests similar names.
    """
    stem = Path(name).stem
    entries = {entry.name: entry for entry in list_entries()}
    if stem not in entries:
        raise ValueError(f'no config is called {stem!r}' +
                         did_you_mean(stem, entries, 4, .3))
    return entries[stem]


def get_config(entry: str | Entry) -> Config:
    """Read the config of an entry.

    Raises:
        ValueError: If the entry does not exist, or has no config.
    """
    if isinstance(entry, str):
        entry = load_entry(entry)
    if not entry.config:
        raise ValueError(f'{entry.name} has no config: {entry.reason}')
    return Config.fromfile(entry.path)


def input_size(name: str) -> tuple[int, int]:
    """Parse height and width from the name of a config (``.._384x288``).

    Raises:
        ValueError: If the name has no size.
    """
    found = re.findall(r'_(\d{2,4})(?:x(\d{2,4}))?(?=_|$)', Path(name).stem)
    if not found:
        raise ValueError(f'{Path(name).stem} does not say its input size; '
                         'pass the height and width')
    height, width = found[-1]
    return int(height), int(width or height)


class NumbersStay(TorchFunctionMode):
    """Keep ``torch.linspace`` on the CPU.

    MMPretrain's backbones read the values of stochastic depth rates from it,
    which tensors on the meta device do not have.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)


def build_model(cfg: Config, device: str = 'meta') -> nn.Module:
    """Build the model of a config, without its pretrained weights.

    On the meta device it has shapes but no values, and uses no memory.
    """
    with DefaultScope.overwrite_default_scope(
            cfg.get('default_scope')), torch.device(device), NumbersStay():
        return MODELS.build(cfg.model)
