# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The commands that reproduce a result of the paper, from pretraining to test.

A :class:`Plan` consists of steps, each with a command and the file it makes.
Running a plan again continues after the last completed step::

    plan = make_plan('hrformer_b_coco_384x288', gpus=8)
    print(describe_plan(plan))
    run_plan(plan)
"""
from .plan import Plan, Step, make_plan
from .report import comparison_table, describe_plan, measured
from .run import measure_step, run_plan

__all__ = [
    'Plan', 'Step', 'comparison_table', 'describe_plan', 'make_plan',
    'measure_step', 'measured', 'run_plan'
]
