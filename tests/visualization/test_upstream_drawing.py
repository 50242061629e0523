# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The frameworks' own visualizers draw with today's numpy and OpenCV."""
import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.structures import InstanceData, PixelData

import hrformer_mm  # noqa: F401

for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)
IMAGE = np.full((90, 120, 3), 40, 'u1')


def build(scope, kind, **options):
    with DefaultScope.overwrite_default_scope(scope):
        return VISUALIZERS.build(dict(type=f'{scope}.{kind}', name=kind,
                                      **options))  # yapf: disable


def people(keypoints=17):
    from mmpose.structures import PoseDataSample
    points = np.random.default_rng(0).uniform(5, 85, (2, keypoints, 2))
    found = InstanceData(
        keypoints=points, keypoint_scores=np.ones((2, keypoints)),
        bboxes=np.array([[5, 5, 60, 80], [20, 8, 90, 70]], float),
        bbox_scores=np.ones(2), scores=np.ones(2))
    sample = PoseDataSample(pred_instances=found, gt_instances=found)
    sample.pred_fields = PixelData(heatmaps=torch.rand(keypoints, 24, 32))
    sample.set_metainfo(dict(ori_shape=IMAGE.shape[:2], img_shape=(90, 120),
                             input_size=(120, 90), input_center=[60, 45],
                             input_scale=[120, 90]))
    return sample


@pytest.mark.parametrize('backend', ['opencv', 'matplotlib'])
@pytest.mark.parametrize('options', [
    {}, dict(draw_bbox=True), dict(show_kpt_idx=True),
    dict(draw_heatmap=True, draw_gt=True), dict(skeleton_style='openpose'),
], ids=str)
def test_mmpose_draws_keypoints(backend, options):
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    meta = parse_pose_metainfo(
        dict(from_file='configs/_base_/datasets/coco.py'))
    judge = build('mmpose', 'PoseLocalVisualizer', backend=backend)
    openpose = options.get('skeleton_style') == 'openpose'
    judge.set_dataset_meta(meta, **({} if not openpose else dict(
        skeleton_style='openpose')))
    drawn = judge.add_datasample('a', IMAGE, people(), show=False, **options)
    drawn = judge.get_image() if drawn is None else drawn
    assert drawn.shape != IMAGE.shape or (drawn != IMAGE).any()


def test_opaque_and_transparent_circles_are_drawn():
    for alpha in (1., .5):
        judge = build('mmpose', 'PoseLocalVisualizer', alpha=alpha)
        judge.set_image(IMAGE.copy())
        judge.draw_circles(np.array([40, 40]), np.array([7]),
                           face_colors=(255, 0, 0), alpha=alpha)
        judge.draw_circles(np.array([90, 40]), 7, face_colors=(0, 9, 0))
        drawn = judge.get_image()
        assert (drawn[40, 46] != IMAGE[40, 46]).any()
        assert (drawn[40, 49] == IMAGE[40, 49]).all()
        assert (drawn[40, 96] != IMAGE[40, 96]).any()


def test_mmseg_draws_labels():
    from mmseg.structures import SegDataSample
    judge = build('mmseg', 'SegLocalVisualizer', alpha=.5)
    judge.dataset_meta = dict(classes=('a', 'b'), palette=[[9] * 3, [200] * 3])
    labels = torch.zeros(1, 90, 120, dtype=torch.long)
    labels[..., 60:] = 1
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    judge.add_datasample('a', IMAGE, sample, draw_gt=False, show=False)


def test_mmpretrain_draws_classes():
    from mmpretrain.structures import DataSample
    judge = build('mmpretrain', 'UniversalVisualizer')
    sample = DataSample().set_pred_score(torch.tensor([.2, .8]))
    sample.set_gt_label(1).set_pred_label(1)
    drawn = judge.visualize_cls(IMAGE, sample, classes=['a', 'b'])
    assert (drawn != IMAGE).any()


def test_keypoints_in_a_tensor_are_drawn():
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    sample = people()
    sample.pred_instances = InstanceData(
        keypoints=torch.tensor(sample.pred_instances.keypoints),
        keypoint_scores=torch.ones(2, 17))
    judge = build('mmpose', 'PoseLocalVisualizer')
    judge.set_dataset_meta(parse_pose_metainfo(
        dict(from_file='configs/_base_/datasets/coco.py')))
    drawn = judge.add_datasample('a', IMAGE, sample, draw_gt=False,
                                 draw_bbox=False, show=False)
    drawn = judge.get_image() if drawn is None else drawn
    assert (drawn != IMAGE).any()


def test_metrics_of_retrieval_run():
    from mmpretrain.evaluation.metrics import RetrievalRecall
    found = RetrievalRecall.calculate(
        [np.array([0, 1]), np.array([1, 0])], [np.array([1]), np.array([1])],
        topk=(1, 2), pred_indices=True, target_indices=True)
    assert [round(float(x)) for x in found] == [50, 100]
