# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Show the progress of training in one line and record its history."""
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..utils.io import read_history

WIDTH = 24  # characters of the progress bar
POINTS = 200  # points of the loss curve
LINES = 10  # lines to print without a terminal


def clock(seconds: float) -> str:
    """Format a duration as 5:07 or 1:02:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours}:{minutes:02d}:{seconds:02d}'
    return f'{minutes}:{seconds:02d}'


class Progress(Hook):
    """Show the progress of training and record its curves.

    Args:
        path: File of one JSON record per line: ``iter`` with ``loss``, or
            with the metrics of an evaluation. When training resumes, records
            after its iteration are dropped.
        metric: Name of the metric to show.
        label: Label of the metric.
        stream: Stream to write to. In a terminal the line is rewritten in
            place; elsewhere about ``LINES`` lines are printed.
    """
    priority = 'LOWEST'

    def __init__(self, path: Path, metric: str, label: str, stream: TextIO):
        self.path, self.metric = path, metric
        self.label, self.stream = label, stream
        self.losses: list[float] = []
        self.loss: float | None = None
        self.value: float | None = None
        self.shown = 0.
        self.printed = 0
        # A run that was killed in an evaluation resumes with it.
        self.began, self.first = time.time(), sys.maxsize

    def before_train(self, runner: Runner):
        records = read_history(self.path, runner.iter)
        self.path.write_text(''.join(
            json.dumps(record) + '\n' for record in records), encoding='utf-8')
        for record in records:
            self.loss = record.get('loss', self.loss)
            self.value = record.get(self.metric, self.value)
        self.began, self.first = time.time(), runner.iter
        self.printed = LINES * runner.iter // max(runner.max_iters, 1)

    def record(self, **values: Any):
        with self.path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(values) + '\n')

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch=None, outputs: dict | None = None):
        done = runner.iter + 1
        self.losses.append(float((outputs or {})['loss'].detach()))
        if done % max(runner.max_iters // POINTS, 1) == 0:
            self.loss = sum(self.losses) / len(self.losses)
            self.losses.clear()
            self.record(iter=done, loss=self.loss)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch=None):
        self.show(runner)  # not after it: an evaluation may follow

    def before_val_epoch(self, runner: Runner):
        if self.stream.isatty():
            self.show(runner, 'evaluating', always=True)

    def after_val_iter(self, runner: Runner, batch_idx: int,
                       data_batch=None, outputs=None):
        if self.stream.isatty():
            total = len(runner.val_dataloader)
            self.show(runner, f'evaluating {batch_idx + 1}/{total}')

    def after_val_epoch(self, runner: Runner,
                        metrics: dict[str, float] | None = None):
        values = {k: float(v) for k, v in (metrics or {}).items()
                  if isinstance(v, (int, float)) or getattr(v, 'ndim', 1) == 0}
        self.record(iter=runner.iter, **values)
        self.value = values.get(self.metric, self.value)
        self.show(runner, always=True)

    def after_train(self, runner: Runner):
        if self.stream.isatty():
            self.stream.write('\n')

    def line(self, runner: Runner, note: str) -> str:
        done, total = runner.iter, max(runner.max_iters, 1)
        full = WIDTH * done // total
        parts = [f"[{'#' * full}{'.' * (WIDTH - full)}] {done}/{total}"]
        if self.loss is not None:
            parts.append(f'loss {self.loss:.3g}')
        if self.value is not None:
            parts.append(f'{self.label} {self.value:.3g}')
        if done > self.first:
            pace = (time.time() - self.began) / (done - self.first)
            parts.append(f'eta {clock(pace * (total - done))}')
        return '  '.join(parts + ([note] if note else []))

    def show(self, runner: Runner, note: str = '', always: bool = False):
        """Rewrite the line, or print one per tenth of the training."""
        share = LINES * runner.iter // max(runner.max_iters, 1)
        if self.stream.isatty():
            if always or time.time() - self.shown > .2:
                self.shown = time.time()
                self.stream.write(f'\r\033[K{self.line(runner, note)}')
        elif always or share > self.printed:
            self.printed = share
            self.stream.write(self.line(runner, note) + '\n')
        self.stream.flush()
