# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Registries of scope ``hrformer_mm``, children of mmengine's.

``type='hrformer_mm.HRFormer'`` resolves from any scope: mmengine imports this
file by itself. A class is imported on its first use, so a task needs only its
own framework.
"""
from importlib import import_module

from mmengine import registry as mmengine

# Framework that a missing module belongs to, and the extra that installs it.
EXTRAS = dict(mmpose='pose', xtcocotools='pose', mmdet='det', mmseg='seg',
              mmpretrain='cls', timm='dpt')  # yapf: disable
MMCV_LINE = "pip install 'mmcv-lite>=2.0.0,<2.2.0'"  # of every extra


def install_line(extra: str) -> str:
    """Return the command that installs an extra of this package."""
    line = f"pip install 'hrformer-mm[{extra}]'"
    if extra == 'pose':  # no extra can ask for a package without chumpy
        line += ' && pip install --no-deps mmpose==1.3.2'
    return line


class LazyRegistry(mmengine.Registry):
    """Registry that imports the module of an entry on its first use.

    Args:
        parent: mmengine's registry.
        entries: Class names, and the modules inside this package that
            register them.
    """

    def __init__(self, parent: mmengine.Registry, entries: dict[str, str]):
        super().__init__(
            f'hrformer_mm {parent.name}', parent=parent, scope='hrformer_mm')
        self.entries = entries

    def import_from_location(self):
        """Do nothing: :meth:`get` imports each entry on demand."""

    def get(self, key: str) -> type | None:
        name = key.rpartition('.')[2]
        if name in self.entries and name not in self._module_dict:
            self.import_entry(name)
        return super().get(key)

    def import_entry(self, name: str):
        try:
            import_module(f'hrformer_mm.{self.entries[name]}')
        except ModuleNotFoundError as error:
            package = (error.name or '').partition('.')[0]
            if package == 'mmcv':
                line = MMCV_LINE
            elif package in EXTRAS:
                line = install_line(EXTRAS[package])
            else:
                raise
            raise ImportError(
                f'hrformer_mm.{name} needs {package}, which is not '
                f'installed: {line}') from error


MODELS = LazyRegistry(
    mmengine.MODELS, {
        'HRFormer': 'models.backbones',
        'SwinTransformer': 'models.baselines.swin',
        'OCRHead': 'models.heads',
        'OHEMCrossEntropyLoss': 'models.losses',
        'PixelCrossEntropyLoss': 'models.losses',
        'RandomPadPreProcessor': 'models.segmentation',
        'LogitsTTAModel': 'models.segmentation',
        'HRFormerClsNeck': 'models.necks',
        'TransPoseNeck': 'models.baselines.transpose',
        'TokenPoseNeck': 'models.baselines.tokenpose',
        'PRTRHead': 'models.baselines.prtr',
        'HybridViT': 'models.baselines.dpt',
        'HybridDPTHead': 'models.baselines.dpt',
        'DPTHybrid': 'models.baselines.dpt',
    })
TRANSFORMS = LazyRegistry(mmengine.TRANSFORMS, {
    'RandomScaleRotation': 'datasets.transforms.pose',
    'RandomScaleAspect': 'datasets.transforms.seg',
    'RandomBrightness': 'datasets.transforms.seg',
    'ScaleAligned': 'datasets.transforms.seg',
})
HOOKS = LazyRegistry(mmengine.HOOKS, {
    'CompileHook': 'engine.hooks.compiling',
    'EqualBuffersHook': 'engine.hooks.buffers',
    'ExactResumeHook': 'engine.hooks.resuming',
    'LabelRangeHook': 'engine.hooks.labels',
    'SafeCheckpointHook': 'engine.hooks.saving',
    'ScaleAccumulatedLRHook': 'engine.hooks.schedules',
    'StopAtNonFiniteLossHook': 'engine.hooks.stopping',
    'UpdateSchedulerHook': 'engine.hooks.accumulation',
})
PARAM_SCHEDULERS = LazyRegistry(mmengine.PARAM_SCHEDULERS, {
    'WarmupCosineLR': 'engine.schedulers',
    'WarmupPolyLR': 'engine.schedulers',
})
METRICS = LazyRegistry(mmengine.METRICS, {
    'TorsoPCK': 'datasets.metrics',
})
VISUALIZERS = LazyRegistry(mmengine.VISUALIZERS, {
    'PoseVisualizer': 'models.visualizers',
})
OPTIM_WRAPPERS = LazyRegistry(mmengine.OPTIM_WRAPPERS, {
    'AmpOptimWrapper': 'engine.optim',
})
OPTIM_WRAPPER_CONSTRUCTORS = LazyRegistry(
    mmengine.OPTIM_WRAPPER_CONSTRUCTORS, {
        'FewGroupsConstructor': 'engine.optim',
        'QuietConstructor': 'engine.optim',
    })
