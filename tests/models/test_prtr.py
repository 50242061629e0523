# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""PRTR: matching, losses and decoding of keypoint queries."""
import pytest
import torch

prtr = pytest.importorskip('hrformer_mm.models.baselines.prtr',
                           reason='the head needs MMPose')
CODEC = dict(type='RegressionLabel', input_size=(48, 64))
SMALL = dict(in_channels=(4, 4, 4, 4), out_channels=3, dim=16, hidden=16,
             depth=2, heads=2, queries=7)  # yapf: disable
K, Q = SMALL['out_channels'], SMALL['queries']


def maps(batch=2):
    return [torch.rand(batch, 4, 32 // 2**i, 24 // 2**i) for i in range(4)]


@pytest.fixture(scope='module')
def head():
    from mmengine.registry import DefaultScope
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpose'):
        return prtr.PRTRHead(decoder=CODEC, **SMALL).eval()


def labelled(places):
    from mmengine.structures import InstanceData
    from mmpose.structures import PoseDataSample
    sample = PoseDataSample(metainfo=dict(flip_indices=[1, 0, 2]))
    sample.gt_instance_labels = InstanceData(
        keypoint_labels=places[None], keypoint_weights=torch.ones(1, K))
    return sample


def test_every_layer_predicts_classes_and_coordinates(head):
    logits, points = head(maps())
    assert logits.shape == (2, 2, Q, K + 1) and points.shape == (2, 2, Q, 2)
    assert 0 < points.min() and points.max() < 1


def test_every_parameter_gets_a_gradient():
    model = prtr.PRTR(**SMALL)
    logits, points = model(maps())
    (logits.sum() + points.sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_keypoints_get_different_queries_at_minimal_cost():
    cost = torch.tensor([[[1., 2., 9.], [1., 9., 9.]]])  # both like query 0
    assert prtr.assign(cost).tolist() == [[1, 0]]


def test_matching_uses_coordinates_and_classes():
    logits, points = torch.zeros(1, 3, 3), torch.full((1, 3, 2), .5)
    labels = torch.tensor([[[.1, .1], [.9, .9]]])
    points[0, 2], points[0, 0] = labels[0, 0], labels[0, 1]
    assert prtr.match(logits, points, labels, 5.).tolist() == [[2, 0]]
    logits[0, 1, 0] = 99.  # as likely as can be, but 0.8 away on both axes
    assert prtr.match(logits, points, labels, 5.).tolist() == [[2, 0]]
    assert prtr.match(logits, points, labels, .1).tolist() == [[1, 0]]


def test_correct_predictions_have_zero_loss(head):
    labels = torch.rand(1, K, 2)
    points = torch.zeros(1, Q, 2)
    logits = torch.full((1, Q, K + 1), -50.)
    logits[0, :, K] = 50.
    for k in range(K):  # query k + 2 is keypoint k
        points[0, k + 2] = labels[0, k]
        logits[0, k + 2] = -50.
        logits[0, k + 2, k] = 50.
    weights = torch.ones(1, K)
    losses = head.layer_losses(logits, points, labels, weights)
    torch.testing.assert_close(torch.stack(losses), torch.zeros(2))
    moved = head.layer_losses(logits, points, labels + .1, weights)[1]
    # five times the mean over x and y of three distances of 0.1, times three
    torch.testing.assert_close(moved, torch.tensor(5 * .1 * K))
    hidden = head.layer_losses(logits, points, labels + .1, weights * 0)[1]
    assert hidden == 0


def test_losses_of_all_layers_reach_the_whole_head(head):
    samples = [labelled(torch.rand(K, 2)) for _ in range(2)]
    losses = head.loss(maps(), samples)
    assert set(losses) == {'loss_class', 'loss_kpt', 'loss_aux'}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())
    head.zero_grad()


def test_points_are_pixels_of_the_input(head):
    with torch.no_grad():
        found = head.predict(maps(), [])
        places, scores = head.find(maps())
    assert len(found) == 2 and found[0].keypoints.shape == (1, K, 2)
    assert found[0].keypoint_scores.shape == (1, K)
    assert (found[0].keypoints < CODEC['input_size']).all()
    assert places.shape == (2, K, 2) and ((0 < scores) & (scores < 1)).all()


def test_flip_test_of_mirrored_maps_changes_nothing(head, monkeypatch):
    """If the network sees in a mirror what it saw, means are the same."""
    places, scores = torch.rand(1, K, 2), torch.rand(1, K)
    order = [1, 0, 2]
    mirrored = places[:, order].clone()
    mirrored[..., 0] = 1 - mirrored[..., 0]
    answers = iter([(places, scores), (mirrored, scores[:, order])])
    monkeypatch.setattr(head, 'find', lambda feats: next(answers))
    found, = head.predict([None, None], [labelled(places[0])],
                          dict(flip_test=True))
    expected = places[0] * torch.tensor(CODEC['input_size'])
    torch.testing.assert_close(
        torch.as_tensor(found.keypoints[0]), expected.to(torch.float64))
    torch.testing.assert_close(torch.as_tensor(found.keypoint_scores),
                               scores)


def test_the_no_object_class_is_ignored_in_tests(head, monkeypatch):
    """Queries are assigned and scored by a softmax over keypoints alone."""
    logits = torch.full((2, 1, Q, K + 1), -9.)
    logits[-1, 0, :, K] = 0.
    logits[-1, 0, 0] = torch.tensor([2., 0., 0., 8.])  # surely none of them
    logits[-1, 0, 1] = torch.tensor([1., 1., 1., -9.])
    logits[-1, 0, 2] = torch.tensor([0., 3., 0., 9.])
    logits[-1, 0, 3] = torch.tensor([0., 0., 4., 9.])
    points = torch.rand(2, 1, Q, 2)
    monkeypatch.setattr(head, 'forward', lambda feats: (logits, points))
    places, scores = head.find(None)
    torch.testing.assert_close(places[0], points[-1, 0, [0, 2, 3]])
    wanted = torch.stack([
        logits[-1, 0, q, :K].softmax(-1)[k]
        for k, q in enumerate((0, 2, 3))])  # yapf: disable
    torch.testing.assert_close(scores[0], wanted)
