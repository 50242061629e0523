# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Register this package's model names in the frameworks.

``mmpose.apis.init_model('hrformer_b_coco_384x288')``, ``MMPoseInferencer``,
``mmpretrain.get_model`` and similar functions look names up in the framework's
own metafiles. Importing this package adds its names for the task of each
framework. Names of the framework and paths are resolved as before.
"""
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from ..tasks import TASKS
from .entries import list_entries


def models_of(scope: str) -> dict[str, str]:
    """Return our config files for a framework by model name."""
    return {entry.name.lower(): str(entry.path)
            for entry in list_entries(task=TASKS[scope].name) if entry.config}


def path_of(name: str, scope: str) -> str | None:
    """Return the config file of a model, if this package has one."""
    return models_of(scope).get(name.lower())


def scope_of(folder: str) -> str | None:
    """Return the framework whose metafiles are in a folder.

    The folder is ``.mim`` in the package, or its parent in a checkout.
    """
    from importlib.util import find_spec
    for scope in TASKS:
        spec = find_spec(scope)
        if spec is not None and spec.origin is not None:
            package = Path(spec.origin).parent
            if Path(folder) in (package / '.mim', package.parent):
                return scope
    return None


def list_in_inferencers(module: Any):
    """Patch mmengine's inferencers, which look a name up in metafiles."""
    kind = module.BaseInferencer
    original = kind._get_models_from_metafile

    def find_models(dir: str) -> Iterator[dict]:
        for model in original(dir):
            yield {'Weights': None, **model}  # avoids a KeyError
        scope = scope_of(dir)
        for name, path in models_of(scope).items() if scope else ():
            # Joining dir with an absolute path returns the latter.
            yield dict(Name=name, Config=path, Weights=None)

    kind._get_models_from_metafile = staticmethod(wraps(original)(find_models))


def take_names(scope: str) -> Callable[[Any], None]:
    """Return a patch of a framework's module with ``init_model``."""

    def patch(module: Any):
        original = module.init_model

        @wraps(original)
        def init_model(config: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(config, str) and not Path(config).exists():
                config = path_of(config, scope) or config
            return original(config, *args, **kwargs)

        module.init_model = init_model

    return patch


def find_in_model_hub(module: Any):
    """Patch MMPretrain's ModelHub.

    It then finds the models of this package without registration, and configs
    whose paths are relative to the folder of the model index, as in mim, and
    not to that of the metafile.
    """
    hub = module.ModelHub
    expand, get = hub._expand_config_path, hub.get

    def expand_path(metainfo: Any, config_prefix: Any = None) -> Any:
        path = expand(metainfo, config_prefix)
        if config_prefix is None and path and not Path(path).is_file():
            for folder in Path(metainfo.filepath).absolute().parents:
                if (folder / metainfo.config).is_file():
                    return str(folder / metainfo.config)
        return path

    def find(cls: Any, model_name: str) -> Any:
        cls._register_mmpretrain_models()
        path = path_of(model_name, 'mmpretrain')
        if path is None or cls.has(model_name.lower()):
            return get(model_name)
        from mmengine.config import Config
        return module.Model(
            name=model_name.lower(), config=Config.fromfile(path))

    hub._expand_config_path = staticmethod(wraps(expand)(expand_path))
    hub.get = classmethod(wraps(get.__func__)(find))


# What the package runs on these modules of the frameworks after their import.
PATCHES: dict[str, Callable[[Any], None]] = {
    'mmengine.infer.infer': list_in_inferencers,
    'mmpose.apis.inference': take_names('mmpose'),
    'mmseg.apis.inference': take_names('mmseg'),
    'mmpretrain.apis.model': find_in_model_hub,
}
