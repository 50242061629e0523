# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find the datasets inside wrappers such as ConcatDataset, and build them."""
import inspect
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope, Registry

# Packages whose transforms do not renumber labels.
KNOWN = ('mmcv', 'mmdet', 'mmengine', 'mmpose', 'mmpretrain', 'mmseg',
         'hrformer_mm')
# Transforms that read the files that a dataset names, without changing them.
LOADING = ('LoadAnnotations', 'LoadImage', 'LoadImageFromFile')


@dataclass(frozen=True)
class Leaf:
    """Dataset that reads files, possibly inside wrappers.

    Attributes:
        key: Key of the dataset, or of its loader if it is the only one there.
        loader: Key of the data loader.
        cfg: Config of the dataset itself.
        scope: Scope in which its type is looked up.
        wrappers: Configs of the wrappers, outermost first.
    """
    key: str
    loader: str
    cfg: Mapping[str, Any]
    scope: str
    wrappers: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def name(self) -> str:
        """Return the type of the dataset and of its wrappers."""
        names = [type_name(self.cfg), *map(type_name, self.wrappers[::-1])]
        return ' in '.join(names)

    @property
    def kind(self) -> type | None:
        """Return the class of the dataset, None if it is not registered."""
        return class_of(self.cfg, self.scope)

    def steps(self) -> list[Mapping[str, Any]]:
        """Return the transforms of the dataset and its wrappers in order."""
        return [
            step for part in (self.cfg, *self.wrappers[::-1])
            for step in part.get('pipeline') or ()
            if isinstance(step, Mapping)
        ]

    def transforms(self) -> dict[str, Mapping[str, Any]]:
        """Return the transforms by class name."""
        return {type_name(step): step for step in self.steps()}

    @property
    def reads_with_opencv(self) -> bool:
        """Return whether OpenCV, the default, decodes the images."""
        return all(step.get('imdecode_backend', 'cv2') == 'cv2'
                   for name, step in self.transforms().items()
                   if name in ('LoadImage', 'LoadImageFromFile'))

    def foreign_transforms(self) -> list[str]:
        """Return names of transforms of packages that are not ``KNOWN``.

        They may renumber labels.
        """
        kinds = {type_name(step): class_of(step, self.scope, TRANSFORMS)
                 for step in self.steps()}  # yapf: disable
        return [name for name, kind in kinds.items()
                if not (kind and kind.__module__.split('.')[0] in KNOWN)]

    def foreign_loading(self) -> list[str]:
        """Return names of loading transforms that the checks cannot mimic."""
        foreign = self.foreign_transforms()
        return [name for name in self.transforms()
                if name.startswith('Load')
                and (name in foreign or name not in LOADING)]

    def build(self, **changes: Any) -> Any:
        """Build the dataset as training does, without its pipeline.

        Raises:
            Exception: If it cannot be built. Training fails in the same way.
        """
        with DefaultScope.overwrite_default_scope(self.scope):
            # An empty dataset cannot be serialised.
            wanted = dict(pipeline=[], serialize_data=False, **changes)
            kept = {k: v for k, v in wanted.items()
                    if accepts(self.kind, k)}  # yapf: disable
            with quiet():
                dataset = DATASETS.build(dict(self.cfg, **kept))
                if hasattr(dataset, 'full_init') and not changes.get(
                        'lazy_init'):
                    dataset.full_init()
            return dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress output and warnings of datasets while they are built."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def type_name(part: Mapping) -> str:
    """Return the name of a type, or of a class, without its scope."""
    kind = part.get('type', 'dataset')
    return kind.__name__ if inspect.isclass(kind) else str(kind).split('.')[-1]


def class_of(part: Mapping,
             scope: str | None,
             registry: Registry = DATASETS) -> type | None:
    """Return the class of a part of a config, None if it is not registered."""
    kind = part.get('type')
    if not isinstance(kind, str):
        return kind if inspect.isclass(kind) else None
    with registry.switch_scope_and_registry(
            part.get('_scope_', scope)) as found:
        return found.get(kind)


def accepts(kind: type | None, name: str) -> bool:
    """Return whether a constructor, or that of a base, takes an argument."""
    for base in inspect.getmro(kind) if kind else ():
        if '__init__' not in vars(base) or base is object:
            continue
        taken = inspect.signature(vars(base)['__init__']).parameters
        if name in taken:
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            return False
    return False


def datasets_of(cfg: Config, loader: str) -> list[Leaf]:
    """Return the datasets that a data loader reads."""
    scope = cfg.get('default_scope')

    def walk(key: str, dataset: Mapping,
             wrappers: tuple[Mapping, ...]) -> Iterator[Leaf]:
        parts = dataset.get('datasets') or ()
        inside = [(i, part) for i, part in enumerate(parts)
                  if isinstance(part, Mapping)]
        if isinstance(dataset.get('dataset'), Mapping):
            yield from walk(f'{key}.dataset', dataset['dataset'],
                            (*wrappers, dataset))
        elif inside:
            for i, part in inside:
                yield from walk(f'{key}.datasets.{i}', part,
                                (*wrappers, dataset))
        else:
            yield Leaf(key, loader, dataset, scope, wrappers)

    leaves = list(walk(f'{loader}.dataset', cfg[loader]['dataset'], ()))
    if len(leaves) == 1:
        only = leaves[0]
        return [Leaf(loader, loader, only.cfg, scope, only.wrappers)]
    return leaves


def steps_of_test(cfg: Config) -> list[Mapping[str, Any]]:
    """Return the transforms that prepare images of the test data.

    Those of a wrapper follow those of its first dataset; conversions of
    labelled keypoints are left out.
    """
    return [step for step in datasets_of(cfg, 'test_dataloader')[0].steps()
            if type_name(step) != 'KeypointConverter']  # yapf: disable


def metainfo_of(cfg: Config) -> dict:
    """Return the meta information of the test dataset of a config.

    It has the names of classes or keypoints, and their colors.
    """
    leaf = datasets_of(cfg, 'test_dataloader')[0]
    kind: Any = leaf.kind
    infos = [part.get('metainfo') for part in (*leaf.wrappers, leaf.cfg)]
    return kind._load_metainfo(next(filter(None, infos), None)) if kind else {}
