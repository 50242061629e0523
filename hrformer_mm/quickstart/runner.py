# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run a quickstart; the modules of the tasks define what differs."""
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname
from tempfile import TemporaryDirectory
from typing import TextIO

from mmengine.config import Config
from mmengine.runner import Runner

from ..checkpoints.schemes import protected_loading
from ..engine.hooks.locking import is_running
from ..engine.train import (
    fit_machine,
    merge_options,
    one_error_for_dead_workers,
    read_config,
    set_data_root,
)
from ..utils.io import read_history, read_json
from ..utils.paths import root
from ..utils.redirect import redirect_output
from ..utils.tracebacks import logged_traceback
from ..visualization.curves import LoggedRun, collect, draw_curves
from .progress import Progress

STAMP = 'quickstart_data.json'  # marks a dataset as generated
STATE = 'quickstart.json'  # request and metrics, in the work dir
HISTORY = 'history.jsonl'
LOG = 'log.txt'


@dataclass(frozen=True)
class QuickstartResult:
    """Result of a quickstart."""
    config: Path  # dumped, self-contained, with the dataset used
    checkpoint: Path | None
    work_dir: Path
    metrics: dict  # metrics of the last evaluation by name
    pictures: list[Path]
    data_root: Path


def commands_by_epoch(task: str, outcome: QuickstartResult) -> list[str]:
    """Return commands to evaluate, train longer and train on own data."""
    longer = f'{outcome.work_dir}_longer'
    epochs = 4 * Config.fromfile(outcome.config).train_cfg.max_epochs
    return [
        f'python tools/test.py {outcome.config} {outcome.checkpoint}',
        f'python tools/train.py {outcome.config} --work-dir {longer} '
        f'--cfg-options train_cfg.max_epochs={epochs}',
        f'bash tools/quickstart.sh --task {task} --data-root /path/to/coco',
    ]


@dataclass(frozen=True)
class Quickstart:
    """Quickstart of one task.

    Attributes:
        name: pose, seg or cls.
        config: Path of the config below ``configs``. It has ``data_root`` at
            its top level, in the layout of the task's real dataset.
        metric: Name of the metric to report, as the evaluator returns it
            (``'coco/AP'``, ``'mIoU'``, ``'accuracy/top1'``).
        metric_label: Label of the metric in figures and in the summary.
        more_metrics: Labels of further metrics in the summary, by their names.
        make_data: ``make_data(root, train, val, seed)`` writes that many
            images, in the layout of the real dataset, to the empty folder
            ``root``. It need not handle interruptions: the folder is moved
            to its place when it is complete.
        images: Number of images to make for training and for validation.
        draw: ``draw(cfg, checkpoint, out_dir)`` writes PNGs of predictions on
            validation images and returns their paths. ``cfg`` is the config
            of the training.
        next_commands: ``next_commands(outcome)`` returns commands to try next.
        layout: Description of the files and folders of a real ``data_root``,
            for ``--help`` and errors.
        needs: Paths that must exist below a real ``data_root``.
        data_version: Version of ``make_data``. Increase it when its output
            changes, so that old datasets are not reused.
        use_data_root: ``use_data_root(cfg, root)`` sets the real dataset of
            the config and adapts all that depends on it, such as classes.
    """
    name: str
    config: str
    metric: str
    metric_label: str
    make_data: Callable[[Path, int, int, int], None]
    images: tuple[int, int]
    draw: Callable[[Config, str, Path], list[Path]]
    next_commands: Callable[[QuickstartResult], list[str]]
    layout: str
    needs: tuple[str, ...]
    data_version: int = 1
    use_data_root: Callable[[Config, str], None] = set_data_root
    more_metrics: Mapping[str, str] = field(default_factory=dict)


def folder_of(task: Quickstart, cfg: Config, images: tuple[int, int],
              seed: int) -> Path:
    """Return the folder of generated data.

    Its name has the counts and the seed if they are not the default ones.
    """
    folder = Path(cfg.data_root)
    if (images, seed) == (task.images, 0):
        return folder
    return folder.with_name(f'{folder.name}_{images[0]}_{images[1]}_{seed}')


def provide_data(task: Quickstart, folder: Path, images: tuple[int, int],
                 seed: int, report: Callable[[str], None]):
    """Make the synthetic data, unless it exists already.

    It is written to a temporary folder and moved to its place when it is
    complete, so an interrupted attempt leaves no incomplete dataset.

    Raises:
        ValueError: If the folder contains data that was not generated.
    """
    made = dict(task=task.name, version=task.data_version, seed=seed,
                train=images[0], val=images[1])
    stamp = folder / STAMP
    if stamp.exists() and read_json(stamp) == made:
        return
    if folder.exists() and not stamp.exists() and any(folder.iterdir()):
        raise ValueError(
            f'{folder} contains data that the quickstart did not make; pass '
            'it as --data-root to train on it, or move it away')
    report(f'making {images[0]} + {images[1]} images in {folder}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix='.making_') as parent:
        fresh = Path(parent) / 'data'
        fresh.mkdir()
        task.make_data(fresh, *images, seed)
        (fresh / STAMP).write_text(json.dumps(made), encoding='utf-8')
        if folder.exists():  # made by an older version
            folder.rename(Path(parent) / 'old')
        fresh.rename(folder)


def check_layout(task: Quickstart, folder: str):
    """Raise FileNotFoundError if a real dataset lacks required files."""
    missing = [p for p in task.needs if not (Path(folder) / p).exists()]
    if missing:
        raise FileNotFoundError(
            f'--data-root {folder} lacks {", ".join(missing)}; it must '
            f'contain {task.layout}')


def count_iters(cfg: Config, epochs: int) -> int:
    """Return the number of iterations in a number of epochs."""
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope(cfg.default_scope)
    loader = cfg.train_dataloader
    return max(epochs * len(DATASETS.build(loader.dataset)) //
               loader.batch_size, 1)  # yapf: disable


def set_epochs(cfg: Config, epochs: int):
    """Set the length of training and of its schedules.

    The model is evaluated and saved ten times at most.
    """
    by_epoch = 'max_epochs' in cfg.train_cfg
    key = 'max_epochs' if by_epoch else 'max_iters'
    old = cfg.train_cfg[key]
    new = epochs if by_epoch else count_iters(cfg, epochs)
    interval = -(-new // 10)
    cfg.train_cfg.update({key: new, 'val_interval': interval})
    cfg.default_hooks.checkpoint.interval = interval
    schedulers = cfg.param_scheduler
    for scheduler in (schedulers if isinstance(schedulers, list) else
                      [schedulers]):  # yapf: disable
        for word in ('end', 'T_max'):
            if scheduler.get(word) == old:
                scheduler[word] = new


def is_other_process(process: str) -> bool:
    """Whether a process, as ``'HOST PID'``, is another one of this host."""
    host, _, number = process.rpartition(' ')
    return host == gethostname() and os.name == 'posix' and int(
        number) != os.getpid() and is_running(int(number))


def choose_work_dir(wanted: Path, request: dict,
                    report: Callable[[str], None]) -> Path:
    """Return the work dir of a request, to start or to resume in.

    This is the first of ``wanted``, ``wanted_2``, ``wanted_3``, ... that is
    empty or has an interrupted run of the same request, so nothing that
    exists is overwritten.
    """
    number = 0
    while True:
        number += 1
        folder = wanted if number == 1 else wanted.with_name(
            f'{wanted.name}_{number}')
        state = folder / STATE
        if state.exists():
            found = json.loads(state.read_text(encoding='utf-8-sig'))
            if found['request'] == request and 'metrics' not in found and \
                    not is_other_process(found['process']):
                report('continuing with the interrupted quickstart in '
                       f'{folder}')
                return folder
        elif not folder.exists() or not any(folder.iterdir()):
            return folder
        if number == 1:
            report(f'{folder} is kept; it has a finished, running or '
                   'different run')


def write_whole(path: Path, content: dict):
    """Write a JSON file atomically."""
    fresh = path.with_suffix('.new')
    fresh.write_text(json.dumps(content, default=str), encoding='utf-8')
    os.replace(fresh, path)


def check_numbers(epochs: int | None, images: tuple[int, int] | None):
    """Raise ValueError for a count below one."""
    counts = dict(epochs=epochs)
    if images:
        counts.update(zip(('train images', 'val images'), images))
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}')


def fill_config(task: Quickstart, cfg: Config, data_root: str | None,
                epochs: int | None, images: tuple[int, int] | None,
                seed: int, cfg_options: dict | None,
                report: Callable[[str], None]):
    """Set the dataset and the options of the user in the config."""
    check_numbers(epochs, images)
    if data_root:
        check_layout(task, data_root)
        task.use_data_root(cfg, data_root)
        if images:
            cfg.train_dataloader.dataset.indices = images[0]
    else:
        images = images or task.images
        folder = folder_of(task, cfg, images, seed)
        provide_data(task, folder, images, seed, report)
        set_data_root(cfg, str(folder))
    if epochs:
        set_epochs(cfg, epochs)
    cfg.randomness = dict(seed=seed)
    merge_options(cfg, cfg_options)


def noted_checkpoint(work_dir: Path) -> Path | None:
    """Return the path of the last checkpoint that the Runner has noted."""
    note = work_dir / 'last_checkpoint'
    if not note.exists():
        return None
    # Take the name only: the folder may have been moved since.
    path = work_dir / Path(note.read_text(encoding='utf-8-sig').strip()).name
    return path if path.exists() else None


def fit_and_evaluate(cfg: Config, metric: str, label: str,
                     stream: TextIO) -> dict:
    """Train or resume, and return the metrics of the final weights."""
    work_dir = Path(cfg.work_dir)
    history = work_dir / HISTORY
    fit_machine(cfg)
    checkpoint = noted_checkpoint(work_dir)
    cfg.resume = checkpoint is not None
    cfg.load_from = str(checkpoint) if checkpoint else None
    # Runners of one process share loggers of the same name.
    cfg.experiment_name = f'{work_dir.name}_{time.time_ns()}'
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Progress(history, metric, label, stream))
    with logged_traceback(runner), one_error_for_dead_workers(), \
            protected_loading():
        runner.train()
    for record in reversed(read_history(history)):
        if metric in record and record['iter'] == runner.max_iters:
            return record
    return {k: float(v) for k, v in runner.val_loop.run().items()}


def from_here(command: str) -> str:
    """Adapt a command for the root of the checkout to the current folder."""
    if Path.cwd() == root():
        return command
    for folder in ('tools', 'configs'):
        command = command.replace(f' {folder}/', f' {root()}/{folder}/')
    return command


def summary(task: Quickstart, outcome: QuickstartResult,
            seconds: float) -> str:
    """Return the text to print at the end."""
    labels = {task.metric: task.metric_label, **task.more_metrics}
    metrics = ', '.join(f'{label} {outcome.metrics[name]:.3g}'
                        for name, label in labels.items())
    lines = [
        '', f'{metrics} on held-out images, in {seconds / 60:.1f} minutes', ''
    ]
    places = [('pictures', p) for p in outcome.pictures] + [
        ('checkpoint', outcome.checkpoint), ('config', outcome.config)
    ]
    lines += [f'  {name:<12}{path}' for name, path in places]
    lines += ['', 'To try next:']
    if os.path.dirname(sys.executable) not in os.get_exec_path():
        lines.append(f'  source {sys.prefix}/bin/activate')
    lines += [f'  {from_here(line)}' for line in task.next_commands(outcome)]
    return '\n'.join(lines)


def run(task: Quickstart,
        data_root: str | None = None,
        work_dir: str | None = None,
        epochs: int | None = None,
        images: tuple[int, int] | None = None,
        seed: int = 0,
        cfg_options: dict | None = None,
        stream: TextIO | None = None) -> QuickstartResult:
    """Make data, train, evaluate, draw predictions and print a summary.

    Args:
        task: Quickstart to run.
        data_root: Folder of a real dataset to use instead of synthetic data.
        work_dir: Folder for the results (default:
            ``work_dirs/quickstart_<task>``). An interrupted quickstart is
            resumed; a finished one is kept, and the next free number is
            appended to the name.
        epochs: Number of epochs (default: length in the config). Converted
            to iterations if the config counts these.
        images: Number of images to make for training and for validation
            (default: ``task.images``). With ``data_root``, the first is the
            number of training samples to use and the second is ignored.
        seed: Seed of data and training.
        cfg_options: Options merged into the config last.
        stream: Stream to print to (default: stdout).

    Raises:
        ValueError: If the data does not fit the task.
        FileNotFoundError: If a real dataset lacks files. Names them.
    """
    began, stream = time.time(), stream or sys.stdout

    def report(text: str):
        print(text, file=stream, flush=True)

    cfg = read_config(str(root() / 'configs' / task.config))
    fill_config(task, cfg, data_root, epochs, images, seed, cfg_options,
                report)
    request = json.loads(json.dumps(cfg.to_dict(), default=str))
    folder = choose_work_dir(
        Path(work_dir or f'work_dirs/quickstart_{task.name}'), request, report)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    found = dict(request=request, process=f'{gethostname()} {os.getpid()}')
    write_whole(state, found)
    cfg.work_dir = str(folder)
    report(f'training {Path(task.config).stem}; output of the frameworks is '
           f'written to {folder / LOG}')
    with redirect_output(folder / LOG):
        metrics = fit_and_evaluate(cfg, task.metric, task.metric_label,
                                   stream)
        checkpoint = noted_checkpoint(folder)
        config = folder / Path(task.config).name
        cfg.resume, cfg.load_from = False, None
        cfg.dump(config)
        pictures = task.draw(cfg, str(checkpoint), folder)
        curves = folder / 'curves.png'
        history = LoggedRun(task.name, collect(read_history(folder / HISTORY)))
        draw_curves([history], {
            'loss': 'training loss',
            task.metric: f'{task.metric_label}, held-out images'
        }).savefig(curves)
    outcome = QuickstartResult(config, checkpoint, folder, metrics,
                               [*pictures, curves], Path(cfg.data_root))
    write_whole(state, dict(found, metrics=metrics))
    report(summary(task, outcome, time.time() - began))
    return outcome
