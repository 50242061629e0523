# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What several GPUs cost a row follows from its size and the assumptions."""
import importlib.util
import re

import pytest
from helpers import CONFIGS, ROOT
from mmengine.config import Config

from hrformer_mm import scaling, soak, zoo
from hrformer_mm.scaling import MIB, Cluster, Demand

PAGE = (ROOT / 'tools/README.md').read_text()


@pytest.fixture(scope='module')
def demand():
    return scaling.demand_of(zoo.get_config('hrformer_s_coco_256x192'))


def tool(path):
    spec = importlib.util.spec_from_file_location('tool', ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demands_are_counted_from_the_config(demand):
    assert demand.gradients == 4 * zoo.load_row(
        'hrformer_s_coco_256x192').parameters
    assert demand.batch == 32
    assert demand.macs / demand.batch == pytest.approx(3.24e9, rel=0.01)
    assert demand.norms > 200


def test_norms_that_are_not_synchronised_cost_nothing():
    cfg = Config.fromfile(CONFIGS / 'cls/hrformer_t_imagenet_224.py')
    assert scaling.demand_of(cfg).norms == 0


def test_a_ring_moves_each_byte_nearly_twice():
    cluster = Cluster(gpus=8, bandwidth=1e9, latency=0.)
    assert cluster.exchange(1e9) == pytest.approx(1.75)


@pytest.mark.parametrize('step, waits', [
    (10., 0.5),  # all but the last of four buckets hides
    (1.5, 1.),  # two thirds of 1.5 s hide 1 of 1.5 s
    (0., 2.),  # nothing hides
])
def test_buckets_hide_behind_the_backward_pass(step, waits):
    demand = Demand(gradients=100 * MIB, norms=0, macs=1, batch=1)
    # Half a second for each bucket of 25 MiB.
    cluster = Cluster(2, bandwidth=50 * MIB, latency=0.)
    assert scaling.waiting(demand, cluster, step) == pytest.approx(waits)


def test_each_synchronised_norm_waits_twice():
    demand = Demand(gradients=0 * MIB + 1, norms=100, macs=1, batch=1)
    cluster = Cluster(8, bandwidth=1e12, latency=1e-3)
    assert scaling.waiting(demand, cluster, 1.) == pytest.approx(.201)
    assert scaling.efficiency(demand, cluster, .201) == pytest.approx(.5)


def test_more_gpus_are_less_efficient_and_longer_steps_more(demand):
    few, many = Cluster(8, 150e9, 2e-5), Cluster(32, 20e9, 5e-5)
    for step in (.01, .1, 1.):
        assert 1 > scaling.efficiency(demand, few, step) > (
            scaling.efficiency(demand, many, step)) > 0
    assert scaling.efficiency(demand, many, 1.) > .95


def test_recipes_scale_the_rate_or_share_the_batch():
    table = scaling.recipe_table(['hrformer_b_coco_384x288',
                                  'hrformer_b_cityscapes_512x1024'], [8, 32])
    rows = [re.sub(' +', ' ', line) for line in table.splitlines()[2:]]
    assert '| 32 | batch 512, lr 0.002 | 4 per GPU |' in rows[1]
    assert '| 32 | batch 32, lr 0.0004 | not evenly |' in rows[3]


def test_a_step_is_timed_without_data():
    cfg = zoo.get_config('hrformer_t_synthetic_112x84')
    model = zoo.build_model(cfg, 'cpu')
    assert 0 < scaling.measure(model, (56, 42), batch=1, steps=1) < 60


@pytest.mark.slow
def test_the_page_says_what_the_tool_prints(capsys):
    tool('tools/analysis/scaling.py').main([])
    for table in capsys.readouterr().out.strip().split('\n\n'):
        assert table.strip() in PAGE


@pytest.mark.parametrize('path', ['tools/analysis/scaling.py',
                                  'tools/soak.py'])
def test_the_tools_explain_themselves(path, capsys):
    with pytest.raises(SystemExit) as exit:
        tool(path).main(['--help'])
    assert exit.value.code == 0 and 'default' in capsys.readouterr().out


def test_links_of_the_page_lead_somewhere():
    links = re.findall(r'\]\(([^)#]+)\)', PAGE)
    assert links
    assert all((ROOT / 'tools' / link).exists() for link in links)


# The soak


def watched(memory, seconds):
    watch = soak.Watch()
    watch.memory, watch.seconds = memory, seconds
    watch.workers = [0] * len(memory)
    return soak.summarize(watch)


def test_a_leak_and_slower_steps_show_in_the_report():
    flat = watched([500] * 10 + [100] * 990, [1.] * 1000)
    assert flat.growth == flat.slowdown == 0  # the first tenth may be more
    leak = watched(list(range(1000, 2000)), [1 + i / 1e3 for i in range(1000)])
    assert leak.growth == pytest.approx(.818, abs=.01)
    assert leak.slowdown == pytest.approx(.7, abs=.1)


def test_too_few_steps_are_refused(tmp_path):
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
