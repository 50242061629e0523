# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Curves of training, what pipelines feed, and what is inside a model."""
import runpy

import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from training_logs import trained, write_log

from hrformer_mm.core.attention import WindowAttention
from hrformer_mm.engine.train import set_data_root
from hrformer_mm.quickstart.synthetic.people import make_people
from hrformer_mm.quickstart.synthetic.scenes import make_scenes
from hrformer_mm.visualization import curves

ARCH = {'model.backbone.arch': dict(
    _delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
    modules=(1, 1, 1), blocks=1)}  # yapf: disable


def tool(path):
    return runpy.run_path(str(ROOT / 'tools' / path))['main']


# Curves


def test_evaluations_are_plotted_at_their_training_iteration(tmp_path):
    val = {'coco/AP': .5, 'time': 1., 'step': 1}
    write_log(tmp_path, [*trained(1, 4), val])
    points = curves.read_run(str(tmp_path)).points
    assert points['coco/AP'] == [(3, .5)]
    assert points['loss'] == [(1, 10.), (2, 5.), (3, 10 / 3)]
    assert set(points) == {'loss', 'lr', 'coco/AP'}


def test_logs_of_a_resumed_run_are_joined(tmp_path):
    write_log(tmp_path, [*trained(1, 6), dict(mIoU=3., step=0)], 'a')
    write_log(tmp_path, [*trained(4, 8, late=1), dict(mIoU=9., step=0)], 'b')
    points = curves.read_run(str(tmp_path)).points
    assert [i for i, _ in points['loss']] == [1, 2, 3, 4, 5, 6, 7]
    assert [i for i, _ in points['late']] == [4, 5, 6, 7]
    assert points['mIoU'] == [(7, 9.)]  # that of 5 was done again


@pytest.mark.parametrize('evaluated', [False, True])
def test_a_resumed_run_that_begins_with_an_evaluation_keeps_its_curve(
        evaluated, tmp_path):
    """It was killed after iteration 4, and saved at 3."""
    val = [dict(mIoU=3., step=0)] * evaluated
    write_log(tmp_path, [*trained(1, 4), *val, *trained(4, 5)], 'a')
    write_log(tmp_path, [dict(mIoU=3., step=0), *trained(4, 6),
                         dict(mIoU=9., step=0)], 'b')
    points = curves.read_run(str(tmp_path)).points
    assert [i for i, _ in points['loss']] == [1, 2, 3, 4, 5]
    assert points['mIoU'] == [(3, 3.), (5, 9.)]


def test_a_log_that_is_being_written_is_read(tmp_path):
    write_log(tmp_path, trained(1, 3))
    log = next(tmp_path.glob('*/vis_data/scalars.json'))
    log.write_text(log.read_text() + '{"loss": 1')
    run = curves.read_run(str(log))
    assert len(run.points['loss']) == 2 and run.name == tmp_path.name


def test_several_runs_are_plotted_in_one_figure(tmp_path):
    for name, ap in (('one', .2), ('two', .4)):
        write_log(tmp_path / name, [
            *trained(1, 80), {'coco/AP': ap, 'step': 1}])
    runs = [curves.read_run(str(tmp_path / n)) for n in ('one', 'two')]
    keys = curves.choose_keys(runs)
    assert keys == ['loss', 'lr', 'coco/AP']
    figure = curves.draw_curves(runs, dict(zip(keys, keys)), smooth=2)
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == ['one', 'two']
        assert [line.get_color() for line in axes.lines] == ['C0', 'C1']
    loss = figure.axes[0].lines[0].get_ydata()
    assert loss[:2].tolist() == [10., 7.5]  # means of two
    assert [t.get_text() for t in figure.axes[2].texts] == ['0.2', '0.4']


def test_plot_curves_does_not_overwrite_and_lists_the_logged_keys(
        tmp_path, capsys):
    write_log(tmp_path / 'run', trained(1, 9))
    main, run = tool('analysis/plot_curves.py'), str(tmp_path / 'run')
    out = ['--out-dir', str(tmp_path)]
    main([run, *out])
    assert cv2.imread(str(tmp_path / 'curves.png')).std() > 5
    for args, words in (([run, *out], '--force'),
                        ([run, *out, '--force', '--keys', 'los'],
                         "['loss', 'lr']"),
                        ([str(tmp_path / 'no'), *out, '--force'], 'no log')):
        with pytest.raises(SystemExit) as end:
            main(args)
        assert end.value.code == 2 and words in capsys.readouterr().err


# What is fed


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    make_people(root / 'pose', 3, 2)
    make_scenes(root / 'seg', 3, 2)
    for name in ('ant', 'bee'):
        (root / 'cls/train' / name).mkdir(parents=True)
        cv2.imwrite(str(root / f'cls/train/{name}/0.png'),
                    np.full((64, 64, 3), 90, 'u1'))
    return root


CONFIG_FILES = dict(pose='pose/hrformer_t_synthetic_112x84.py',
                    seg='seg/hrformer_t_synthetic_112x224.py',
                    cls='cls/hrformer_t_digits_64.py')  # yapf: disable


@pytest.fixture(scope='module')
def fed(data):
    """Drawn samples of the training data of each task."""
    pytest.importorskip('mmpose', reason='draws the data of pose')
    from hrformer_mm.datasets.browse import browse
    images = {}
    for task, path in CONFIG_FILES.items():
        cfg = Config.fromfile(CONFIGS / path)
        set_data_root(cfg, str(data / task))
        images[task] = browse(cfg, number=2)
    return images


def count(image, color, tolerance=12):
    """Pixels near a colour (blue, green, red)."""
    return (np.abs(image.astype(int) - color).max(2) < tolerance).sum()


def test_browsing_shows_keypoints_and_heatmaps(fed):
    image = fed['pose'][0]
    assert image.shape == (400, 600, 3)  # the crop, and beside it its targets
    crop, heat = np.hsplit(image, 2)
    assert count(crop, (0, 255, 0), 60) > 100  # links of the left side
    assert count(crop, (255, 153, 51), 40) > 100  # points of the face
    assert heat.astype(int)[..., 2].max() > crop.mean()
    assert np.abs(heat.astype(int) - crop).mean() > 10


def test_browsing_data_of_evaluation_shows_the_crop_alone(data):
    from hrformer_mm.datasets.browse import browse
    cfg = Config.fromfile(CONFIGS / CONFIG_FILES['pose'])
    set_data_root(cfg, str(data / 'pose'))
    image, = browse(cfg, 'val_dataloader', number=1)
    assert image.shape == (400, 300, 3)
    assert count(image, (0, 255, 0), 60) > 100


def test_browsing_shows_labels_by_color(fed):
    image = fed['seg'][0]
    assert image.shape[:2] == (400, 800)
    # Half the palette's purple of roads on half of dark grey asphalt.
    assert image[360:390, 200:600].astype(int)[..., 0].mean() > \
        image[360:390, 200:600].astype(int)[..., 1].mean() + 15


def test_rotated_digits_are_filled_with_white(fed):
    for image in fed['cls']:
        assert count(image, (255, 0, 0), 60) == 0
        assert count(image, (255, 255, 255)) > 0


@pytest.mark.slow
def test_browse_dataset_is_deterministic_for_a_seed(data, tmp_path):
    main, pictures = tool('browse_dataset.py'), []
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        main([str(CONFIGS / CONFIG_FILES['seg']), '--data-root',
              str(data / 'seg'), '--number', '2', '--seed', str(seed),
              '--out-dir', str(tmp_path / name)])
        path, = (tmp_path / name).iterdir()
        assert path.name == 'hrformer_t_synthetic_112x224_train.png'
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


# Inside a model


@pytest.mark.parametrize('hw', [(14, 14), (9, 11)])
@pytest.mark.parametrize('shift', [0, 3])
def test_drawn_attention_equals_that_of_the_model(hw, shift):
    from hrformer_mm.apis.feature_maps import attention_weights, cut_windows
    torch.manual_seed(0)
    window = WindowAttention(16, 2, 7, shift=shift).eval()
    attn = window.attn
    x, mask = cut_windows(window, torch.randn(1, *hw, 16))
    shares = attention_weights(attn, x, mask)
    v = attn.qkv(x)[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
    ours = attn.proj((shares @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, attn(x, mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('place', [(0, 0), (4, 8), (13, 6), (6, 13)])
def test_a_position_attends_to_its_own_window(place):
    from hrformer_mm.apis.feature_maps import attention_at
    window = WindowAttention(16, 2, 7).eval()
    shares = attention_at(window, torch.randn(1, 14, 14, 16), *place)
    inside = torch.zeros(14, 14, dtype=bool)
    top, left = (7 * (n // 7) for n in place)
    inside[top:top + 7, left:left + 7] = True
    assert shares[inside].min() > 0 and shares[~inside].max() == 0
    assert shares.sum().item() == pytest.approx(1, abs=1e-5)


def test_attention_without_bias_and_content_is_uniform():
    from hrformer_mm.apis.feature_maps import attention_at
    window = WindowAttention(16, 2, 7, rel_pos_bias=False).eval()
    # 9 x 9 is padded to 14 x 14: three rows and two more below them.
    shares = attention_at(window, torch.ones(1, 9, 9, 16), 0, 0)
    seen = shares[shares > 0]
    assert len(seen) == 5 * 5
    torch.testing.assert_close(seen, seen[:1].expand(25))


@pytest.fixture(scope='module')
def seen(data, tmp_path_factory):
    """Pictures by the tool of small random models, by task."""
    folder = tmp_path_factory.mktemp('seen')
    options = dict(pose={'model.head.in_channels': 8}, seg={
        'model.decode_head.in_channels': (8, 16, 32, 64)})
    images = dict(pose='val2017/000000000001.jpg',
                  seg='leftImg8bit/val/drawn/'
                  'drawn_000000_000000_leftImg8bit.png')
    for task, image in images.items():
        cfg = Config.fromfile(CONFIGS / CONFIG_FILES[task])
        cfg.merge_from_dict({**ARCH, **options[task]})
        init_default_scope(cfg.default_scope)
        cfg.dump(folder / f'{task}.py')
        torch.manual_seed(0)
        torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()),
                   folder / f'{task}.pth')
        tool('analysis/visualize.py')([
            str(folder / f'{task}.py'), str(folder / f'{task}.pth'),
            str(data / task / image), '--device', 'cpu', '--at', '.3', '.8',
            '--out-dir', str(folder / task),
            *(['--box', '60', '40', '90', '160'] * (task == 'pose'))])
    return folder


def test_pictures_of_a_model_are_those_of_its_task(seen):
    names = {task: sorted(p.name for p in (seen / task).iterdir())
             for task in ('pose', 'seg')}
    assert names == dict(
        pose=['attention.png', 'streams.png'],
        seg=['attention.png', 'regions.png', 'streams.png'])
    for path in seen.glob('*/*.png'):
        assert cv2.imread(str(path)).std() > 20, path


def test_pictures_are_not_overwritten(seen, capsys):
    with pytest.raises(SystemExit) as end:
        tool('analysis/visualize.py')([
            str(seen / 'pose.py'), str(seen / 'pose.pth'), 'no.jpg',
            '--out-dir', str(seen / 'pose')])
    assert end.value.code == 2
    assert 'streams.png is already there' in capsys.readouterr().err


def test_a_network_of_one_stream_is_rejected():
    from hrformer_mm.apis.feature_maps import last_branches
    with pytest.raises(ValueError, match='parallel streams'):
        last_branches(torch.nn.Identity())
