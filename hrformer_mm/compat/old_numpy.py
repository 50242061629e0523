# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""NumPy with functions that newer versions have removed or changed."""
from types import ModuleType
from typing import Any

# Modules that use np.in1d, which numpy 2.4 removed, or np.array(copy=False),
# which raises since numpy 2.0 if a list or a tensor must be copied.
MODULES = ('mmpretrain.evaluation.metrics.retrieval',
           'mmpose.visualization.local_visualizer',
           'mmpose.visualization.local_visualizer_3d')  # yapf: disable


class OldNumpy(ModuleType):
    """NumPy with ``in1d``, where ``copy=False`` copies if necessary."""

    def __getattr__(self, name: str) -> Any:
        import numpy
        return getattr(numpy, 'isin' if name == 'in1d' else name)

    def array(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        import numpy
        if kwargs.get('copy') is False:
            del kwargs['copy']
            return numpy.asarray(value, *args, **kwargs)
        return numpy.array(value, *args, **kwargs)


def use_old_numpy(module: Any):
    """Replace NumPy in one module."""
    module.np = OldNumpy('numpy')
