# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Import modules by other names than those of their files.

Names of version 0.1 work for one release, with a warning; others are public
names, such as that of the command ``python -m hrformer_mm.check_env``.
"""
import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any

PACKAGE = 'hrformer_mm'
MOVED = {  # old module: new module
    'apis.drawing': 'visualization.drawing',
    'browse': 'datasets.browse',
    'checkpoints.catalogue': 'checkpoints.weights_index',
    'checkpoints.release': 'checkpoints.publish',
    'checks': 'utils.config_checks',
    'cli': 'utils.cli',
    'core.cpu': 'core.kernels.cpu',
    'core.prtr': 'models.baselines.prtr',
    'core.swin': 'models.baselines.swin',
    'costs': 'utils.costs',
    'curves': 'visualization.curves',
    'datasets.bodies': 'quickstart.synthetic.bodies',
    'datasets.check': 'datasets.validation.common',
    'datasets.check_cls': 'datasets.validation.cls',
    'datasets.check_pose': 'datasets.validation.pose',
    'datasets.check_seg': 'datasets.validation.seg',
    'datasets.contact_sheet': 'datasets.validation.contact_sheet',
    'datasets.digits': 'quickstart.synthetic.digits',
    'datasets.key_points': 'datasets.keypoint_metainfo',  # language: allow
    'datasets.people': 'quickstart.synthetic.people',
    'datasets.pose_transforms': 'datasets.transforms.pose',
    'datasets.scenes': 'quickstart.synthetic.scenes',
    'datasets.seg_transforms': 'datasets.transforms.seg',
    'deploy.graph': 'deploy.onnx_modules',
    'deploy.outputs': 'deploy.postprocess',
    'distributed': 'engine.distributed',
    'flops': 'zoo.flops',
    'hooks': 'engine.hooks',
    'hooks.resuming': 'engine.hooks.resuming',
    'hooks.saving': 'engine.hooks.saving',
    'hooks.stopping': 'engine.hooks.stopping',
    'integrations': 'models',
    'integrations.hub': 'models.hub',
    'integrations.timm': 'timm',
    'markdown': 'utils.markdown',
    'models.ablations': 'models.baselines.swin',
    'models.prtr': 'models.baselines.prtr',
    'near': 'utils.suggest',
    'optim': 'engine.optim',
    'preflight': 'engine.preflight',
    'quickstart.common': 'quickstart.runner',
    'quickstart.pictures': 'visualization.figures',
    'reproduce': 'zoo.reproduce',
    'reproduce.plan': 'zoo.reproduce.plan',
    'reproduce.report': 'zoo.reproduce.report',
    'reproduce.run': 'zoo.reproduce.run',
    'schedulers': 'engine.schedulers',
    'tables': 'zoo.tables',
    'training': 'engine.train',
    'views': 'apis.feature_maps',
}
ALIASES = {'check_env': 'utils.check_env'}  # public name: module


class MovedLoader(Loader):
    """Create a module that forwards all attributes to its new name."""

    def __init__(self, new: str):
        self.new = new

    def get_code(self, name: str) -> CodeType | None:
        """Return the code that ``python -m`` runs."""
        loader: Any = getattr(find_spec(self.new), 'loader')
        return loader.get_code(self.new)

    def exec_module(self, module: ModuleType):
        if module.__name__.partition('.')[2] in MOVED:
            warnings.warn(
                f'{module.__name__} is now {self.new}; the old name will be '
                'removed in version 0.3', DeprecationWarning, stacklevel=2)
        new = import_module(self.new)

        def look_up(name: str) -> Any:
            return getattr(new, name)

        module.__dict__.update(__getattr__=look_up, __doc__=new.__doc__)


class MovedFinder(MetaPathFinder):
    """Find the names in :data:`MOVED` and :data:`ALIASES` only."""

    def find_spec(self, name: str, path: Any = None,
                  target: Any = None) -> ModuleSpec | None:
        package, _, module = name.partition('.')
        new = MOVED.get(module) or ALIASES.get(module)
        if package != PACKAGE or new is None:
            return None
        is_package = any(old.startswith(f'{module}.') for old in MOVED)
        source: Any = find_spec(f'{PACKAGE}.{new}')
        return ModuleSpec(
            name, MovedLoader(f'{PACKAGE}.{new}'), is_package=is_package,
            origin=source.origin)  # __file__ with python -m


def install():
    """Install the finder, after all other finders."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
