# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Describe a plan: its commands, cost and results."""
import json
import shlex
from typing import Any

from ...utils.markdown import markdown_table
from .plan import Plan, Step

# Metrics by the evaluators' names, and factors to the metafiles' percent.
METRICS = {
    'coco/AP': ('AP', 100), 'coco/AP .5': ('AP50', 100),
    'coco/AP .75': ('AP75', 100), 'coco/AP (M)': ('APM', 100),
    'coco/AP (L)': ('APL', 100), 'coco/AR': ('AR', 100), 'mIoU': ('mIoU', 1),
    'accuracy/top1': ('Top 1 Accuracy', 1),
    'accuracy/top5': ('Top 5 Accuracy', 1)
}  # yapf: disable


def gpu_hours(step: Step, gpus: int, seconds: float) -> float:
    """Estimate the GPU hours of a training from the seconds of a step."""
    return step.iterations * seconds * gpus / 3600


def cost_line(step: Step, gpus: int, seconds: float | None) -> str:
    """Describe iterations and estimated GPU hours of a training."""
    if not step.iterations:
        return ''
    if seconds is None:
        tenth = gpu_hours(step, gpus, .1)
        return (f'{step.iterations} iterations; {tenth:.0f} GPU hours for '
                'each 0.1 s of a step (nothing was measured; use --measure)')
    hours = gpu_hours(step, gpus, seconds)
    return (f'{step.iterations} iterations; about {hours:.0f} GPU hours, an '
            f'estimate from steps of {seconds:.3f} s')


def describe_plan(plan: Plan, seconds: float | None = None) -> str:
    """Describe a plan: requirements, commands and the files they make.

    Args:
        plan: Plan from :func:`make_plan`.
        seconds: Measured time of a training step of the entry (not of its
            pretraining) on one GPU.
    """
    lines = [f'{plan.entry.name} on {plan.gpus} GPU'
             f'{"s" if plan.gpus > 1 else ""}, {len(plan.steps)} steps']
    lines += [f'needed first: {need}' for need in plan.needs]
    for number, step in enumerate(plan.steps, 1):
        done = ' (done)' if step.makes.exists() else ''
        lines += ['', f'{number}. {step.name}{done}',
                  f'   {shlex.join(step.command)}', f'   makes {step.makes}']
        cost = cost_line(step, plan.gpus,
                         seconds if step.name == 'training' else None)
        lines += [f'   {cost}'] if cost else []
    return '\n'.join([*lines, '', comparison_table(plan)])


def measured(plan: Plan) -> dict:
    """Return the metrics written by the tests of a plan, in percent."""
    found = {}
    for step in plan.steps:
        if step.measures and step.makes.exists():
            values = json.loads(step.makes.read_text(encoding='utf-8-sig'))
            for key, (name, scale) in METRICS.items():
                if key in values:
                    found[name + step.suffix] = values[key] * scale
    return found


def comparison_table(plan: Plan) -> str:
    """Compare paper, official code and own results in a Markdown table."""
    columns: list[tuple[str, Any]] = [
        (f'paper, {table}', printed.metrics)
        for table, printed in plan.entry.paper.items()
    ]
    if plan.entry.official:
        columns.append(('official code', plan.entry.official.metrics))
    columns += [(other.by, other.metrics) for other in plan.entry.third_party]
    columns = [(k, {} if isinstance(m, str) else m) for k, m in columns]
    here = measured(plan)
    names = dict.fromkeys(n for _, m in columns for n in m)
    names.update(dict.fromkeys(here))
    if not names:
        return 'no public source gives an accuracy of this entry\n'
    lines = [[name, *(str(m.get(name, '')) for _, m in columns),
              f'{here[name]:.2f}' if name in here else 'not yet']
             for name in names]
    return markdown_table(['metric', *(k for k, _ in columns), 'here'], lines)
