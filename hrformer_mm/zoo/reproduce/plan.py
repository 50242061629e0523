# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Which steps reproduce a row, and what they need."""
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from mmengine.config import Config

from ...checkpoints import find_file
from ...checkpoints.files import MIRROR
from ...checkpoints.weights_index import list_weights, page_of
from ...engine.train import merge_options
from ...utils.costs import count_iterations
from ...utils.paths import root
from ..rows import Row, get_config, list_rows, load_row

# Training samples of the datasets whose rows count epochs: keypoint
# annotations of people in COCO train2017, and images of ImageNet-1k.
SAMPLES = {'COCO': 149813, 'ImageNet-1k': 1281167}


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


def pretraining(
    cfg: Config, gpus: int, work_dir: Path, data_root: Optional[str],
    from_scratch: bool
) -> Tuple[Optional[Step], Dict[str, str], Tuple[str, ...]]:
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
