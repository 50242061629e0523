# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Decisions of exported files: wrong ones are refused, ties are not."""
import pytest
import torch
from torch import nn

from hrformer_mm.deploy.comparison import TOLERANCES, compare, undecided
from hrformer_mm.deploy.postprocess import Labels, Network, keypoints_of

codecs = pytest.importorskip('mmpose.codecs')
CODECS = dict(
    quarter=dict(type='MSRAHeatmap', sigma=2),
    dark=dict(type='MSRAHeatmap', sigma=2, unbiased=True),
    udp=dict(type='UDPHeatmap', sigma=2))
IMAGE = torch.zeros(1, 3, 64, 48)


class Maps(nn.Module):
    """A model whose maps are given."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, image, **kwargs):
        return self.maps


class LabelHead:
    align_corners, threshold, num_classes = False, 0.3, 4


def network(maps, task, codec=None):
    result = Network(Maps(maps), task, post=False)
    result.last = Labels(LabelHead()) if task == 'seg' else keypoints_of(
        getattr(codecs, codec['type'])(
            input_size=(48, 64), heatmap_size=(12, 16),
            **{k: v for k, v in codec.items() if k != 'type'}))
    result.names = result.last.names
    return result


def hills(heights, centres=((3.3, 4.2), (8.2, 11.3))):
    """Heatmaps [1, 17, 16, 12] with a hill at each centre (x, y)."""
    y, x = torch.meshgrid(torch.arange(16.), torch.arange(12.), indexing='ij')
    hill = [h * torch.exp(-((x - a)**2 + (y - b)**2) / 4)
            for h, (a, b) in zip(heights, centres)]
    return sum(hill).expand(1, 17, -1, -1).clone()


def as_file(maps, *args):
    """The outputs of a file that computes other maps."""
    with torch.no_grad():
        outputs = network(maps, *args)(IMAGE)
    return lambda image: [y.numpy() for y in outputs]


@pytest.mark.parametrize('codec', CODECS.values(), ids=CODECS)
def test_keypoints_may_be_at_either_of_two_equal_maxima(codec):
    first, second = hills((1, 1 - 1e-6)), hills((1 - 1e-6, 1))
    run = as_file(second, 'pose', codec)
    moved = run(None)[0] - as_file(first, 'pose', codec)(None)[0]
    assert abs(moved).max() > 10
    found = compare(run, network(first, 'pose', codec), [IMAGE.numpy()],
                    TOLERANCES['fp32'])
    assert found[1, 3, 64, 48]['keypoints'] == 0


@pytest.mark.parametrize('codec', CODECS.values(), ids=CODECS)
def test_one_wrong_keypoint_is_refused(codec):
    maps = hills((1, .2))
    run = as_file(maps, 'pose', codec)
    points, scores = run(None)
    points[0, 5, 0] += 2
    with pytest.raises(ValueError, match='keypoints of images .* by 0.029'):
        compare(lambda _: (points, scores), network(maps, 'pose', codec),
                [IMAGE.numpy()], TOLERANCES['fp32'])


def test_maps_around_zero_do_not_decide_whether_there_is_a_keypoint():
    maps = hills((1, .2))
    maps[0, 3] = 1e-7
    other = maps.clone()
    other[0, 3] = -1e-7
    codec = CODECS['quarter']
    found = compare(as_file(other, 'pose', codec),
                    network(maps, 'pose', codec), [IMAGE.numpy()],
                    TOLERANCES['fp32'])
    assert found[1, 3, 64, 48]['keypoints'] == 0


@pytest.mark.parametrize('classes', [1, 4])
def test_labels_differ_only_where_classes_are_equally_likely(classes):
    maps = torch.rand(1, classes, 16, 12, generator=torch.Generator(
        ).manual_seed(0)) * .1  # yapf: disable
    maps[:, :, :8] += 3 * torch.eye(4)[0, :classes, None, None]
    if classes == 1:
        maps[:, :, 8:] -= 3
    else:
        maps[:, :2, 8:] = 1.  # two equal classes in the lower half
    last = network(maps, 'seg')
    labels, = as_file(maps, 'seg')(None)
    ties = undecided(last, maps, IMAGE)['labels']
    assert not ties[:, :28].any()
    if classes > 1:
        assert ties[:, 36:].mean() > .97
        labels[:, 40:] = 1 - labels[:, 40:]
    compare(lambda _: [labels], last, [IMAGE.numpy()],
            TOLERANCES['fp32'])
    labels[:, :2] = 1 - labels[:, :2]
    with pytest.raises(ValueError, match='labels of images'):
        compare(lambda _: [labels], last, [IMAGE.numpy()],
                TOLERANCES['fp32'])


def test_outputs_that_are_not_numbers_are_refused():
    codec = CODECS['udp']
    maps = hills((1, .2))
    points, scores = as_file(maps, 'pose', codec)(None)
    points[:] = float('nan')
    with pytest.raises(ValueError, match='keypoints of images .* by 1'):
        compare(lambda _: (points, scores), network(maps, 'pose', codec),
                [IMAGE.numpy()], TOLERANCES['fp32'])
