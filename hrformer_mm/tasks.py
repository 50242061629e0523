# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Table of the differences between the frameworks."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """Task and the framework that implements it.

    Attributes:
        name: Folder in ``configs``, extra to install, and module of the task
            in packages such as ``apis``.
        scope: ``default_scope`` of its configs, the framework's package.
        visualization_hook: Hook that draws predictions of a test.
        predictor: Class in the module of the task in ``apis``.
        metric: Headline metric, as the evaluator returns it.
        metric_label: Name of the metric in text and figures.
        overfit_target: Value of the metric, in its own unit, that a model
            reaches when it overfits a few images.
    """
    name: str
    scope: str
    visualization_hook: str
    predictor: str
    metric: str
    metric_label: str
    overfit_target: float


TASKS: dict[str, Task] = {
    task.scope: task
    for task in (
        Task('pose', 'mmpose', 'PoseVisualizationHook', 'PosePredictor',
             'coco/AP', 'AP', 0.9),
        Task('seg', 'mmseg', 'SegVisualizationHook', 'SegPredictor', 'mIoU',
             'mIoU', 90.),
        Task('cls', 'mmpretrain', 'VisualizationHook', 'ClsPredictor',
             'accuracy/top1', 'top-1', 99.),
        Task('det', 'mmdet', 'DetVisualizationHook', 'DetPredictor',
             'coco/bbox_mAP', 'box AP', 0.9),
    )
}
SCOPES = tuple(TASKS)
NAMES = tuple(task.name for task in TASKS.values())


def get_task(cfg: Mapping[str, Any]) -> Task:
    """Return the task of a config.

    Raises:
        ValueError: If its ``default_scope`` is none of the frameworks.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise ValueError(f'default_scope of {getattr(cfg, "filename", None)} '
                         f'must be one of {sorted(TASKS)}, got {scope!r}')
    return TASKS[scope]


def best_metric(cfg: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return the metric that selects the best checkpoint of a config.

    Returns:
        Its name, or None if the config does not name one, and whether smaller
        values are better.
    """
    hook = cfg.get('default_hooks', {}).get('checkpoint', {})
    best = hook.get('save_best')
    if isinstance(best, (list, tuple)):
        best = best[0] if best else None
    rule = hook.get('rule')
    if isinstance(rule, (list, tuple)):
        rule = rule[0] if rule else None
    return None if best == 'auto' else best, rule == 'less'
