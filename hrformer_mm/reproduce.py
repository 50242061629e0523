# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The commands that give one number of the paper, from pretraining to test.

A :class:`Plan` is made of steps, each a command and the file that proves it
was done; so running a plan again goes on where it was stopped::

    plan = make_plan('hrformer_b_coco_384x288', gpus=8)
    print(describe(plan))
    run(plan)
"""
import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, List, Mapping, Optional, Tuple

from mmengine.config import Config
from mmengine.device import get_device

from .checkpoints import find_file
from .checkpoints.catalogue import list_weights, page_of
from .checkpoints.files import MIRROR
from .costs import count_iterations
from .tables import markdown_table
from .training import check_data, fit_machine, merge_options, set_data_root
from .zoo import Row, get_config, list_rows, load_row, root

# Training samples of the data sets whose rows count epochs: key point
# annotations of people in COCO train2017, and images of ImageNet-1k.
SAMPLES = {'COCO': 149813, 'ImageNet-1k': 1281167}
# Metrics as the evaluators name them, and in percent as metafiles do.
METRICS = {
    'coco/AP': ('AP', 100), 'coco/AP .5': ('AP50', 100),
    'coco/AP .75': ('AP75', 100), 'coco/AP (M)': ('APM', 100),
    'coco/AP (L)': ('APL', 100), 'coco/AR': ('AR', 100), 'mIoU': ('mIoU', 1),
    'accuracy/top1': ('Top 1 Accuracy', 1),
    'accuracy/top5': ('Top 5 Accuracy', 1)
}  # yapf: disable


@dataclass(frozen=True)
class Step:
    """A command of a plan.

    Attributes:
        name: What it does, for people.
        command: Its words.
        makes: A file that is there if and only if it was done.
        iterations: Of a training, if the size of its data is known.
        suffix: Of the names of its metrics, such as ``' (ms+flip)'``.
        measures: ``makes`` is a json file with metrics.
    """
    name: str
    command: Tuple[str, ...]
    makes: Path
    iterations: int = 0
    suffix: str = ''
    measures: bool = False


@dataclass(frozen=True)
class Plan:
    """Steps that reproduce a row on a number of GPUs.

    Attributes:
        needs: What must be put in place by hand, in words.
    """
    row: Row
    gpus: int
    steps: Tuple[Step, ...]
    needs: Tuple[str, ...]


def option_words(options: Mapping[str, Any]) -> List[str]:
    """Options as ``--cfg-options`` takes them."""
    return ['--cfg-options', *(f'{k}={v}'.replace(' ', '')
                               for k, v in options.items())] if options else []


def tool(name: str, config: Path, gpus: int, *words: str) -> Tuple[str, ...]:
    """The command of a tool: ``'train'`` or ``'test'``.

    Several GPUs are served by the launcher of that name.
    """
    folder = Path(os.path.relpath(root() / 'tools'))
    path = os.path.relpath(config)
    if gpus == 1:
        return ('python', str(folder / f'{name}.py'), path, *words)
    launcher = str(folder / f'dist_{name}.sh')
    count = str(gpus)
    if name == 'test':  # CONFIG CHECKPOINT GPUS
        return ('bash', launcher, path, words[0], count, *words[1:])
    return ('bash', launcher, path, count, *words)


def keep_batch(cfg: Config, gpus: int) -> dict:
    """The option that keeps the batch of a recipe on so many GPUs.

    Raises:
        ValueError: If it cannot be shared equally; names what can.
    """
    batch = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    if batch is None or cfg.train_dataloader.batch_size * gpus == batch:
        return {}
    if batch % gpus:
        fits = [n for n in range(1, batch + 1) if batch % n == 0 and n <= 64]
        raise ValueError(f'the recipe has batches of {batch}, which {gpus} '
                         f'GPUs cannot share equally; {fits} can')
    return {'train_dataloader.batch_size': batch // gpus}


def last_checkpoint(cfg: Config, work_dir: Path) -> Path:
    """The file that the training of a config ends with."""
    epochs = cfg.train_cfg.get('max_epochs')
    return work_dir / (f'epoch_{epochs}.pth' if epochs else
                       f'iter_{cfg.train_cfg.max_iters}.pth')


def training_step(row: Row, gpus: int, work_dir: Path, name: str,
                  options: Mapping[str, Any],
                  data_root: Optional[str]) -> Tuple[Step, Config]:
    """The training of a row, and its config with all options.

    Its batch is the recipe's, unless ``options`` name another.
    """
    cfg = get_config(row)
    options = {**keep_batch(cfg, gpus), **options}
    merge_options(cfg, options)
    folder = work_dir / row.name
    samples = SAMPLES.get(row.results[0].dataset if row.results else '', 0)
    known = samples or not cfg.train_cfg.get('max_epochs')
    iterations = count_iterations(cfg, samples, gpus)[0] if known else 0
    data = ['--data-root', data_root] if data_root else []
    command = tool('train', row.path, gpus, '--work-dir', str(folder),
                   '--resume', *data, *option_words(options))
    return Step(name, command, last_checkpoint(cfg, folder), iterations), cfg


def trained_by(checkpoint: str) -> Optional[Row]:
    """The row whose training gives what a file of weights has, if any."""
    rows = {row.name: row for row in list_rows(task='cls') if row.config}
    for weights in list_weights():
        if weights.name == checkpoint and weights.layout == 'official-cls':
            return rows[Path(weights.config).stem]
    return rows.get(Path(checkpoint).stem)


def is_there(checkpoint: str) -> bool:
    """Whether weights of this name are found, or loading downloads them."""
    if '://' in checkpoint or os.environ.get(MIRROR):
        return True
    try:
        find_file(checkpoint)
    except FileNotFoundError:
        return False
    return True


def pretrained_file(cfg: Config) -> Optional[str]:
    """Name of the weights that the backbone of a config starts from."""
    init = cfg.model.get('backbone', {}).get('init_cfg') or {}
    return init.get('checkpoint') if isinstance(init, dict) else None


def missing_data(row: Row, cfg: Config,
                 data_root: Optional[str]) -> Tuple[str, ...]:
    """What to say if the data of a row are not there."""
    where = data_root or cfg.get('data_root')
    if not where or Path(where).exists():
        return ()
    kind = row.results[0].dataset if row.results else 'its'
    readme = os.path.relpath(row.path.parent / 'README.md')
    return (f'{where}: {kind} data, see {readme}', )


def pretraining(cfg: Config, gpus: int, work_dir: Path,
                data_root: Optional[str], from_scratch: bool):
    """How the weights that a config starts from come to be there.

    Returns:
        The step that trains them (or None), options of the training that
        follows, and what must be put in place by hand.
    """
    wanted = pretrained_file(cfg)
    if wanted is None:
        return None, {}, ()
    row = trained_by(wanted)
    if is_there(wanted) and not (from_scratch and row):
        return None, {}, ()
    if row is None:
        page = page_of(wanted)
        source = f' from {page}' if page else ''
        return None, {}, (f'weights/{wanted}{source}', )
    step, own = training_step(row, gpus, work_dir,
                              f'pretraining on ImageNet: {row.name}', {},
                              data_root)
    key = 'model.backbone.init_cfg.checkpoint'
    needs = () if step.makes.exists() else missing_data(row, own, data_root)
    return step, {key: str(step.makes)}, needs


def test_steps(row: Row, cfg: Config, gpus: int, checkpoint: Path,
               options: Mapping[str, Any],
               data_root: Optional[str]) -> List[Step]:
    """Evaluations: the row's own, and with scales and flips where it has."""
    folder = checkpoint.parent
    data = ['--data-root', data_root] if data_root else []

    def words(out: Path, *flags: str) -> Tuple[str, ...]:
        return tool('test', row.path, gpus, str(checkpoint), '--work-dir',
                    str(folder), '--out', str(out), *flags, *data,
                    *option_words(options))

    prefix = cfg.test_evaluator.get('outfile_prefix')
    if prefix:
        return [Step('predictions for the evaluation server',
                     words(folder / 'testdev.json'),
                     Path(f'{prefix}.keypoints.json'))]
    out, tta = folder / 'test.json', folder / 'test_tta.json'
    steps = [Step('test', words(out), out, measures=True)]
    if 'tta_pipeline' in cfg:
        steps.append(
            Step('test with several scales and flips', words(tta, '--tta'),
                 tta, suffix=' (ms+flip)', measures=True))
    return steps


def twin_of(row: Row) -> Row:
    """The row whose training gives the weights: test-dev has none."""
    twin = row.name.removesuffix('_testdev')
    return next((r for r in list_rows() if r.name == twin), row)


def make_plan(name: str,
              gpus: int = 8,
              work_dir: str = 'work_dirs',
              data_root: Optional[str] = None,
              imagenet: Optional[str] = None,
              from_scratch: bool = False,
              options: Optional[Mapping[str, Any]] = None) -> Plan:
    """What reproduces a row.

    Args:
        name: Of a row, or the path of its config.
        gpus: Processes; the batch stays that of the recipe.
        work_dir: Where a folder for each training is made.
        data_root: Folder of the row's data, instead of its own.
        imagenet: Folder of ImageNet for the pretraining, likewise.
        from_scratch: Pretrain even where released weights are found.
        options: ``--cfg-options`` of the row, not of its pretraining.

    Raises:
        ValueError: For a row that is not there or has no config, and for a
            number of GPUs that its batch does not allow.
    """
    row, options, folder = load_row(name), dict(options or {}), Path(work_dir)
    if gpus < 1:
        raise ValueError(f'gpus must be at least 1, got {gpus}')
    merged = get_config(row)  # raises for a row without
    merge_options(merged, options)
    step, start, needs = pretraining(merged, gpus, folder, imagenet,
                                     from_scratch)
    trained = twin_of(row)
    training, cfg = training_step(trained, gpus, folder, 'training',
                                  {**start, **options}, data_root)
    tests = test_steps(row, merged, gpus, training.makes, options, data_root)
    needs = (*missing_data(row, cfg, data_root), *needs)
    steps = [s for s in (step, training, *tests) if s is not None]
    return Plan(row, gpus, tuple(steps), needs)


def gpu_hours(step: Step, gpus: int, seconds: float) -> float:
    """Estimate for a training whose steps take so many seconds."""
    return step.iterations * seconds * gpus / 3600


def cost_line(step: Step, gpus: int, seconds: Optional[float]) -> str:
    """Iterations and GPU hours of a training; those are an estimate."""
    if not step.iterations:
        return ''
    if seconds is None:
        tenth = gpu_hours(step, gpus, .1)
        return (f'{step.iterations} iterations; {tenth:.0f} GPU hours for '
                'each 0.1 s that a step takes (nothing was measured; '
                '--measure does)')
    hours = gpu_hours(step, gpus, seconds)
    return (f'{step.iterations} iterations; about {hours:.0f} GPU hours, an '
            f'estimate from steps of {seconds:.3f} s')


def describe(plan: Plan, seconds: Optional[float] = None) -> str:
    """The plan in words: what is needed, each command, what it makes.

    Args:
        plan: Of :func:`make_plan`.
        seconds: Of a training step of the row (not of its pretraining) on one
            GPU, as it was measured.
    """
    lines = [f'{plan.row.name} on {plan.gpus} GPU'
             f'{"s" if plan.gpus > 1 else ""}, {len(plan.steps)} steps']
    lines += [f'needed first: {need}' for need in plan.needs]
    for number, step in enumerate(plan.steps, 1):
        done = ' (done)' if step.makes.exists() else ''
        lines += ['', f'{number}. {step.name}{done}',
                  f'   {shlex.join(step.command)}', f'   makes {step.makes}']
        cost = cost_line(step, plan.gpus,
                         seconds if step.name == 'training' else None)
        lines += [f'   {cost}'] if cost else []
    return '\n'.join([*lines, '', compare(plan)])


def measured(plan: Plan) -> dict:
    """Metrics that the tests of a plan have written, in percent."""
    found = {}
    for step in plan.steps:
        if step.measures and step.makes.exists():
            values = json.loads(step.makes.read_text())
            for key, (name, scale) in METRICS.items():
                if key in values:
                    found[name + step.suffix] = values[key] * scale
    return found


def compare(plan: Plan) -> str:
    """Paper, official code and this machine side by side, in Markdown."""
    columns = [(f'paper, {table}', printed.metrics)
               for table, printed in plan.row.paper.items()]
    if plan.row.official:
        columns.append(('official code', plan.row.official.metrics))
    columns += [(other.by, other.metrics) for other in plan.row.third_party]
    columns = [(k, {} if isinstance(m, str) else m) for k, m in columns]
    here = measured(plan)
    names = dict.fromkeys(n for _, m in columns for n in m)
    names.update(dict.fromkeys(here))
    if not names:
        return 'no public source gives an accuracy of this row\n'
    lines = [[name, *(str(m.get(name, '')) for _, m in columns),
              f'{here[name]:.2f}' if name in here else 'not yet']
             for name in names]
    return markdown_table(['metric', *(k for k, _ in columns), 'here'], lines)


def measure_step(plan: Plan,
                 data_root: Optional[str] = None,
                 options: Optional[Mapping[str, Any]] = None,
                 tell: Callable[[str], None] = print) -> float:
    """Seconds of a training step of a row on one device of this machine.

    Args:
        plan: Of the row.
        data_root: Where its data are.
        options: As they were given to :func:`make_plan`.
        tell: Is given what was measured, and on what.

    Raises:
        FileNotFoundError: If the data are not there.
    """
    from .preflight.rehearsal import Rehearsal
    cfg = get_config(plan.row)
    if data_root:
        set_data_root(cfg, data_root)
    merge_options(cfg, {**keep_batch(cfg, plan.gpus), **(options or {})})
    check_data(cfg, 'train_dataloader')
    batch = cfg.train_dataloader.batch_size
    fit_machine(cfg)
    with TemporaryDirectory() as folder:
        rehearsal = Rehearsal(cfg, folder)
        found = rehearsal.train()
        if get_device() == 'cpu':  # only takes longer for more samples
            seconds = found.seconds * batch / found.samples
        else:
            seconds = rehearsal.train_whole_batch(batch)
    tell(f'a step of {batch} samples took {seconds:.3f} s on one '
         f'{get_device()} device, data loading left out')
    return seconds


def run(plan: Plan, tell: Callable[[str], None] = print):
    """Do the steps that are not done yet; trainings resume.

    Raises:
        FileNotFoundError: If something must be put in place first.
        RuntimeError: If a command fails or does not make its file.
    """
    if plan.needs:
        raise FileNotFoundError('needed first: ' + '; '.join(plan.needs))
    for number, step in enumerate(plan.steps, 1):
        if step.makes.exists():
            tell(f'{number}. {step.name}: done, {step.makes} is there')
            continue
        tell(f'{number}. {step.name}: {shlex.join(step.command)}')
        code = subprocess.run(step.command).returncode
        if code or not step.makes.exists():
            raise RuntimeError(
                f'{step.name} ended with code {code} and '
                f'{"with" if step.makes.exists() else "without"} '
                f'{step.makes}; the same command goes on from there')
    tell(compare(plan))
