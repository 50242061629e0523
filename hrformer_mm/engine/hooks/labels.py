# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Stop training at labels that are out of range."""
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ...registry import HOOKS

PAD = 255  # label of padding in MMSegmentation


def samples_of(batch: Any) -> Iterator[Any]:
    """Yield the data samples of a batch, flattening lists of views."""
    found = batch.get('data_samples') if isinstance(batch, Mapping) else None
    for sample in found if isinstance(found, (list, tuple)) else ():
        yield from sample if isinstance(sample, (list, tuple)) else [sample]


def shown(values: Tensor) -> list:
    return values.unique()[:5].tolist()


@HOOKS.register_module()
class LabelRangeHook(Hook):
    """Stop training at labels out of range and name their file.

    Losses fail on such labels with an error that names no file, on GPUs with
    a device-side assert. Batches are checked before they are moved to the GPU.
    """
    priority = 'VERY_HIGH'

    def before_train(self, runner):
        """Read the number of classes from the model."""
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        seg, cls = (getattr(model, name, None)
                    for name in ('decode_head', 'head'))
        if isinstance(seg, nn.ModuleList):  # cascade of heads
            seg = seg[-1]
        self.seg_classes = getattr(seg, 'num_classes', None)
        ignored = getattr(seg, 'ignore_index', PAD)
        pads = getattr(seg, 'ignores_padding', False)
        self.ignored = {ignored, *([PAD] if pads else [])}
        self.cls_classes = getattr(cls, 'num_classes', None)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None):
        """Check the labels of a batch.

        Raises:
            ValueError: If a label is out of range. Names the file, the labels
                and the valid ones.
        """
        for sample in samples_of(data_batch):
            for key, fault in (('seg_map_path', self.seg_fault(sample)),
                               ('img_path', self.cls_fault(sample))):
                if fault:
                    where = getattr(sample, 'metainfo', {}).get(key) or (
                        f'a sample of iteration {runner.iter + 1}')
                    raise ValueError(f'{where} {fault}. '
                                     'tools/check_dataset.py lists all files')

    def seg_fault(self, sample: Any) -> str | None:
        """Describe the error of a label map; return None without one."""
        if self.seg_classes is None or 'gt_sem_seg' not in sample:
            return None
        labels = sample.gt_sem_seg.data
        if labels.ndim != 3 or labels.shape[0] != 1:
            return (f'has the shape {tuple(labels.shape)}; a label map has '
                    'one channel: convert its colors to class indices')
        wrong = (labels < 0) | (labels >= self.seg_classes)
        for value in self.ignored:
            wrong &= labels != value
        if not wrong.any():
            return None
        return (f'has the labels {shown(labels[wrong])}; with '
                f'{self.seg_classes} classes they are 0 to '
                f'{self.seg_classes - 1}, and {sorted(self.ignored)} are '
                'ignored: renumber them, or change num_classes')

    def cls_fault(self, sample: Any) -> str | None:
        """Describe the error of an image label; return None without one."""
        if self.cls_classes is None or 'gt_label' not in sample:
            return None
        labels = sample.gt_label
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            return None
        wrong = (labels < 0) | (labels >= self.cls_classes)
        if not wrong.any():
            return None
        return (f'has the label {shown(labels[wrong])}, but the head has '
                f'{self.cls_classes} classes, which allows 0 to '
                f'{self.cls_classes - 1}: set model.head.num_classes, or '
                'remove folders that are not classes')
