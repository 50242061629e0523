# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The quickstart of detection: boxes and masks of drawn people."""
import json
import re

import cv2
import pytest

pytest.importorskip('mmdet')
from hrformer_mm.quickstart import det  # noqa: E402
from hrformer_mm.quickstart.runner import STATE, run  # noqa: E402

ONE_PROCESS = {f'{name}_dataloader.{key}': value
               for name in ('train', 'val', 'test')
               for key, value in (('num_workers', 0),
                                  ('persistent_workers', False))}


@pytest.mark.slow
def test_the_quickstart_finds_boxes_and_masks_of_held_out_people(
        tmp_path, monkeypatch):
    """The whole of it; box AP was 0.592, mask AP 0.328 when it was written."""
    monkeypatch.chdir(tmp_path)
    outcome = run(det.TASK, cfg_options=ONE_PROCESS)
    assert outcome.metrics['coco/bbox_mAP'] >= .5
    assert outcome.metrics['coco/segm_mAP'] >= .2
    assert cv2.imread(str(outcome.pictures[0])).std() > 20


@pytest.mark.slow
def test_a_short_quickstart_runs_to_its_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    outcome = run(det.TASK, epochs=1, images=(8, 3), cfg_options=ONE_PROCESS)
    state = json.loads((outcome.work_dir / STATE).read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= {*state['metrics']}
    assert re.search(r'box AP \S+, mask AP \S+ on held-out images',
                     capsys.readouterr().out)
    assert all(picture.exists() for picture in outcome.pictures)
    assert outcome.checkpoint.exists() and outcome.config.exists()
