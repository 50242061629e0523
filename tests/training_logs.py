# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Logs of trainings that never ran."""
import json


def write_log(folder, records, time='20260101_000000'):
    path = folder / time / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(r) + '\n' for r in records))
    return folder


def trained(begin, end, **more):
    return [dict(loss=10 / i, lr=.1, epoch=1, iter=i, step=i, **more)
            for i in range(begin, end)]
