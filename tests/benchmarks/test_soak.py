# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Long trainings: memory must not grow, nor steps become slower."""
import pytest

from benchmarks import soak
from hrformer_mm import zoo


def watched(memory, seconds):
    watch = soak.Watch()
    watch.memory, watch.seconds = memory, seconds
    watch.workers = [0] * len(memory)
    return soak.summarize(watch)


def test_leaks_and_slower_steps_are_reported():
    flat = watched([500] * 10 + [100] * 990, [1.] * 1000)
    assert flat.growth == flat.slowdown == 0  # the first tenth may be more
    leak = watched(list(range(1000, 2000)), [1 + i / 1e3 for i in range(1000)])
    assert leak.growth == pytest.approx(.818, abs=.01)
    assert leak.slowdown == pytest.approx(.7, abs=.1)


def test_too_few_steps_are_rejected(tmp_path):
    with pytest.raises(ValueError, match='at least 100'):
        soak.soak('pose', str(tmp_path), iters=10)


@pytest.mark.parametrize('task', zoo.TASKS)
def test_every_task_can_be_soaked(task, tmp_path):
    cfg = soak.make_config(task, 100, tmp_path, None)
    assert cfg.train_cfg.max_iters == 100 and not cfg.log_processor.by_epoch


@pytest.mark.slow
def test_two_thousand_steps_neither_leak_nor_slow_down(tmp_path):
    report = soak.soak('pose', str(tmp_path))
    print(report)
    assert report.steps == 2000
    assert report.growth < 0.02
    assert report.slowdown < 0.2  # machines do other things meanwhile
