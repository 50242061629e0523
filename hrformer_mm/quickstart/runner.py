# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What the quickstarts of all tasks share; a task says only what differs."""
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from tempfile import TemporaryDirectory
from typing import Callable, List, Optional, TextIO, Tuple

from mmengine.config import Config
from mmengine.runner import Runner

from ..checkpoints.schemes import protected_loading
from ..engine.train import (fit_machine, merge_options,
                            one_error_for_dead_workers, read_config,
                            set_data_root)
from ..utils.io import read_history, read_json
from ..utils.paths import root
from ..utils.redirect import redirect_output
from ..utils.tracebacks import logged_traceback
from ..visualization.curves import Run, collect, draw_curves
from .progress import Progress

STAMP = 'quickstart_data.json'  # in data that was made here
STATE = 'quickstart.json'  # in a work dir: what was asked, and what it gave
HISTORY = 'history.jsonl'
LOG = 'log.txt'


@dataclass(frozen=True)
class Outcome:
    """What a quickstart leaves behind."""
    config: Path  # dumped, self-contained, with the data that was used
    checkpoint: Optional[Path]
    work_dir: Path
    metrics: dict  # of the last evaluation, by name as in ``Task.metric``
    pictures: List[Path]
    data_root: Path


@dataclass(frozen=True)
class Task:
    """One quickstart.

    Attributes:
        name: pose, seg or cls.
        config: The row, below ``configs``. It has ``data_root`` at its top
            level, in the layout that the task's real dataset has.
        metric: Name of the figure to report, as the evaluator gives it
            (``'coco/AP'``, ``'mIoU'``, ``'accuracy/top1'``).
        metric_label: What to call it in pictures and in the summary.
        make_data: ``make_data(root, train, val, seed)`` writes that many
            images, in the layout of the real dataset, into the empty folder
            ``root``. It need not care for interruptions: the folder is put
            in place when it is complete.
        images: How many to make for training and for validation.
        draw: ``draw(cfg, checkpoint, out_dir)`` writes PNGs of predictions on
            validation images and gives their paths. ``cfg`` is what was
            trained, its data in place.
        next_commands: ``next_commands(outcome)`` gives three commands to try.
        layout: Files and folders that a real ``data_root`` must have, in
            words; shown by ``--help`` and in errors.
        needs: The paths below a real ``data_root`` to check for.
        data_version: Raise it when ``make_data`` gives other data than
            before, so that an old dataset is not taken for the new one.
        use_data_root: ``use_data_root(cfg, root)`` moves the config to a real
            dataset and adapts what depends on it, such as classes.
    """
    name: str
    config: str
    metric: str
    metric_label: str
    make_data: Callable[[Path, int, int, int], None]
    images: Tuple[int, int]
    draw: Callable[[Config, str, Path], List[Path]]
    next_commands: Callable[[Outcome], List[str]]
    layout: str
    needs: Tuple[str, ...]
    data_version: int = 1
    use_data_root: Callable[[Config, str], None] = set_data_root


def folder_of(task: Task, cfg: Config, images: Tuple[int, int],
              seed: int) -> Path:
    """Where made data goes; what is not the usual says so in its name."""
    folder = Path(cfg.data_root)
    if (images, seed) == (task.images, 0):
        return folder
    return folder.with_name(f'{folder.name}_{images[0]}_{images[1]}_{seed}')


def provide_data(task: Task, folder: Path, images: Tuple[int, int],
                 seed: int, tell: Callable[[str], None]):
    """Make the synthetic data, unless it is there already.

    It is written elsewhere and moved to its place when it is complete, so an
    interrupted attempt leaves nothing that could be taken for it.

    Raises:
        ValueError: If the folder holds something that was not made here.
    """
    made = dict(task=task.name, version=task.data_version, seed=seed,
                train=images[0], val=images[1])
    stamp = folder / STAMP
    if stamp.exists() and read_json(stamp) == made:
        return
    if folder.exists() and not stamp.exists() and any(folder.iterdir()):
        raise ValueError(
            f'{folder} holds data that the quickstart did not make; give it '
            'as --data-root to train on it, or move it away')
    tell(f'making {images[0]} + {images[1]} images in {folder}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix='.making_') as parent:
        fresh = Path(parent) / 'data'
        fresh.mkdir()
        task.make_data(fresh, *images, seed)
        (fresh / STAMP).write_text(json.dumps(made), encoding='utf-8')
        if folder.exists():  # what an older version made
            folder.rename(Path(parent) / 'old')
        fresh.rename(folder)


def check_layout(task: Task, folder: str):
    """Raise FileNotFoundError if a real dataset lacks what is needed."""
    missing = [p for p in task.needs if not (Path(folder) / p).exists()]
    if missing:
        raise FileNotFoundError(
            f'--data-root {folder} lacks {", ".join(missing)}; it must hold '
            f'{task.layout}')


def count_iters(cfg: Config, epochs: int) -> int:
    """Iterations of so many passes over the training images."""
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope(cfg.default_scope)
    loader = cfg.train_dataloader
    return max(epochs * len(DATASETS.build(loader.dataset)) //
               loader.batch_size, 1)  # yapf: disable


def set_epochs(cfg: Config, epochs: int):
    """Set the length of training, and end all schedules with it.

    Evaluation and checkpoints come ten times at most.
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


def is_running(process: str) -> bool:
    """Whether a process, as host and number, is another one of this host."""
    host, _, number = process.rpartition(' ')
    if host != gethostname() or int(number) == os.getpid() or \
            os.name != 'posix':
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def choose_work_dir(wanted: Path, request: dict,
                    tell: Callable[[str], None]) -> Path:
    """The wanted folder if it is free or was interrupted in the same work.

    Otherwise the first of ``wanted_2``, ``wanted_3``, ... for which that
    holds, so nothing that exists is overwritten.
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
                    not is_running(found['process']):
                tell(f'continuing with the interrupted quickstart in {folder}')
                return folder
        elif not folder.exists() or not any(folder.iterdir()):
            return folder
        if number == 1:
            tell(f'{folder} is kept; it holds a finished, running or '
                 'different run')


def write_json(path: Path, content: dict):
    """Replace a file at once, so that it is never half written."""
    fresh = path.with_suffix('.new')
    fresh.write_text(json.dumps(content, default=str), encoding='utf-8')
    os.replace(fresh, path)


def check_counts(epochs: Optional[int], images: Optional[Tuple[int, int]]):
    """Raise ValueError for a count below one."""
    counts = dict(epochs=epochs)
    if images:
        counts.update(zip(('train images', 'val images'), images))
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}')


def fill_config(task: Task, cfg: Config, data_root: Optional[str],
                epochs: Optional[int], images: Optional[Tuple[int, int]],
                seed: int, cfg_options: Optional[dict],
                tell: Callable[[str], None]):
    """Put the data, and what the user asked for, into the config."""
    check_counts(epochs, images)
    if data_root:
        check_layout(task, data_root)
        task.use_data_root(cfg, data_root)
        if images:
            cfg.train_dataloader.dataset.indices = images[0]
    else:
        images = images or task.images
        folder = folder_of(task, cfg, images, seed)
        provide_data(task, folder, images, seed, tell)
        set_data_root(cfg, str(folder))
    if epochs:
        set_epochs(cfg, epochs)
    cfg.randomness = dict(seed=seed)
    merge_options(cfg, cfg_options)


def last_checkpoint(work_dir: Path) -> Optional[Path]:
    """Where the Runner's note says that the last checkpoint lies."""
    note = work_dir / 'last_checkpoint'
    if not note.exists():
        return None
    # The note has the path as of then; the folder may have been moved.
    path = work_dir / Path(note.read_text(encoding='utf-8-sig').strip()).name
    return path if path.exists() else None


def fit_and_evaluate(cfg: Config, metric: str, label: str,
                     stream: TextIO) -> dict:
    """Train, or continue with it, and give the metrics of the last weights."""
    work_dir = Path(cfg.work_dir)
    history = work_dir / HISTORY
    fit_machine(cfg)
    checkpoint = last_checkpoint(work_dir)
    cfg.resume = checkpoint is not None
    cfg.load_from = str(checkpoint) if checkpoint else None
    # Runners of one process share what has the same name.
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
    """A command for the root of the checkout, made to work in this folder."""
    if Path.cwd() == root():
        return command
    for folder in ('tools', 'configs'):
        command = command.replace(f' {folder}/', f' {root()}/{folder}/')
    return command


def summary(task: Task, outcome: Outcome, seconds: float) -> str:
    """What to read at the end."""
    lines = [
        '', f'{task.metric_label} {outcome.metrics[task.metric]:.3g} on '
        f'held-out images, in {seconds / 60:.1f} minutes', ''
    ]
    places = [('pictures', p) for p in outcome.pictures] + [
        ('checkpoint', outcome.checkpoint), ('config', outcome.config)
    ]
    lines += [f'  {what:<12}{path}' for what, path in places]
    lines += ['', 'To try next:']
    if os.path.dirname(sys.executable) not in os.get_exec_path():
        lines.append(f'  source {sys.prefix}/bin/activate')
    lines += [f'  {from_here(line)}' for line in task.next_commands(outcome)]
    return '\n'.join(lines)


def run(task: Task,
        data_root: Optional[str] = None,
        work_dir: Optional[str] = None,
        epochs: Optional[int] = None,
        images: Optional[Tuple[int, int]] = None,
        seed: int = 0,
        cfg_options: Optional[dict] = None,
        stream: Optional[TextIO] = None) -> Outcome:
    """Make data, train, evaluate, draw and tell what came of it.

    Args:
        data_root: A real dataset instead of the synthetic one.
        work_dir: Default ``work_dirs/quickstart_<task>``. An interrupted
            quickstart is resumed; a finished one is kept and a folder with
            the next free number is taken.
        epochs: Instead of the config's; for a config in iterations too,
            these are passes over the training images.
        images: To make for training and for validation, instead of
            ``task.images``. Of a real dataset, the first of these is how
            many samples to train on.
        seed: Of data and training.
        cfg_options: Merged into the config last.
        stream: Where to tell of it; default stdout.

    Raises:
        ValueError: If the data is not as the task needs it; says how.
        FileNotFoundError: If a real dataset lacks files; says which.
    """
    began, stream = time.time(), stream or sys.stdout

    def tell(text: str):
        print(text, file=stream, flush=True)

    cfg = read_config(str(root() / 'configs' / task.config))
    fill_config(task, cfg, data_root, epochs, images, seed, cfg_options, tell)
    request = json.loads(json.dumps(cfg.to_dict(), default=str))
    folder = choose_work_dir(
        Path(work_dir or f'work_dirs/quickstart_{task.name}'), request, tell)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    found = dict(request=request, process=f'{gethostname()} {os.getpid()}')
    write_json(state, found)
    cfg.work_dir = str(folder)
    tell(f'training {Path(task.config).stem}; all that the frameworks print '
         f'goes to {folder / LOG}')
    with redirect_output(folder / LOG):
        metrics = fit_and_evaluate(cfg, task.metric, task.metric_label,
                                   stream)
        checkpoint = last_checkpoint(folder)
        config = folder / Path(task.config).name
        cfg.resume, cfg.load_from = False, None
        cfg.dump(config)
        pictures = task.draw(cfg, str(checkpoint), folder)
        curves = folder / 'curves.png'
        history = Run(task.name, collect(read_history(folder / HISTORY)))
        draw_curves([history], {
            'loss': 'training loss',
            task.metric: f'{task.metric_label}, held-out images'
        }).savefig(curves)
    outcome = Outcome(config, checkpoint, folder, metrics,
                      [*pictures, curves], Path(cfg.data_root))
    write_json(state, dict(found, metrics=metrics))
    tell(summary(task, outcome, time.time() - began))
    return outcome
