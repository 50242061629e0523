# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Plan the steps that reproduce the result of a config."""
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...checkpoints.download import is_offline
from ...checkpoints.files import MIRROR, find_local
from ...checkpoints.weights_index import (
    direct_urls,
    list_weights,
    pages_of,
    substitutes,
)
from ...engine.train import merge_options
from ...utils.costs import count_iterations
from ...utils.paths import root
from ..entries import Entry, get_config, list_entries, load_entry

# Training samples of the datasets of configs that count epochs: keypoint
# annotations of people in COCO train2017, and images of ImageNet-1k.
SAMPLES = {'COCO': 149813, 'ImageNet-1k': 1281167}


@dataclass(frozen=True)
class Step:
    """A command of a plan.

    Attributes:
        name: Description.
        command: Command line as words.
        makes: File that exists if and only if the step is complete.
        iterations: Number of training iterations, if the data size is known.
        suffix: Suffix of its metrics' names, such as ``' (ms+flip)'``.
        measures: Whether ``makes`` is a JSON file with metrics.
    """
    name: str
    command: tuple[str, ...]
    makes: Path
    iterations: int = 0
    suffix: str = ''
    measures: bool = False


@dataclass(frozen=True)
class Plan:
    """Steps that reproduce the result of a config on a number of GPUs.

    Attributes:
        needs: Files that the user must provide first, as text.
    """
    entry: Entry
    gpus: int
    steps: tuple[Step, ...]
    needs: tuple[str, ...]


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Format options as the words of ``--cfg-options``."""
    return ['--cfg-options', *(f'{k}={v}'.replace(' ', '')
                               for k, v in options.items())] if options else []


def tool(name: str, config: Path, gpus: int, *words: str) -> tuple[str, ...]:
    """Return the command of a tool: ``'train'`` or ``'test'``.

    With several GPUs, it is the ``dist_*.sh`` launcher of the tool.
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
    """Return the option that keeps a recipe's batch size on a number of GPUs.

    Raises:
        ValueError: If the batch is not divisible; lists valid numbers.
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
    """Return the last checkpoint that the training of a config writes."""
    epochs = cfg.train_cfg.get('max_epochs')
    return work_dir / (f'epoch_{epochs}.pth' if epochs else
                       f'iter_{cfg.train_cfg.max_iters}.pth')


def training_step(entry: Entry, gpus: int, work_dir: Path, name: str,
                  options: Mapping[str, Any],
                  data_root: str | None) -> tuple[Step, Config]:
    """Return the training step of an entry, and its config with all options.

    The batch is the recipe's, unless ``options`` override it.
    """
    cfg = get_config(entry)
    options = {**keep_batch(cfg, gpus), **options}
    merge_options(cfg, options)
    folder = work_dir / entry.name
    samples = SAMPLES.get(entry.results[0].dataset if entry.results else '', 0)
    known = samples or not cfg.train_cfg.get('max_epochs')
    iterations = count_iterations(cfg, samples, gpus)[0] if known else 0
    data = ['--data-root', data_root] if data_root else []
    command = tool('train', entry.path, gpus, '--work-dir', str(folder),
                   '--resume', *data, *option_words(options))
    return Step(name, command, last_checkpoint(cfg, folder), iterations), cfg


def trained_by(checkpoint: str) -> Entry | None:
    """Return the entry whose training produces a checkpoint, if any."""
    entries = {entry.name: entry
               for entry in list_entries(task='cls') if entry.config}
    for weights in list_weights():
        if weights.name == checkpoint and weights.layout == 'official-cls':
            return entries[Path(weights.config).stem]
    return entries.get(Path(checkpoint).stem)


def is_there(checkpoint: str) -> bool:
    """Return whether weights of this name exist or can be downloaded."""
    if '://' in checkpoint or os.environ.get(MIRROR):
        return True
    return any(
        find_local(name) or (direct_urls(name) and not is_offline())
        for name in (checkpoint, *substitutes(checkpoint)))


def pretrained_file(cfg: Config) -> str | None:
    """Return the name of the pretrained weights of a config's backbone."""
    init = cfg.model.get('backbone', {}).get('init_cfg') or {}
    return init.get('checkpoint') if isinstance(init, dict) else None


def data_to_get(entry: Entry, cfg: Config,
                data_root: str | None) -> tuple[str, ...]:
    """Return a message for the user if the data of an entry are missing."""
    where = data_root or cfg.get('data_root')
    if not where or Path(where).exists():
        return ()
    kind = entry.results[0].dataset if entry.results else 'its'
    readme = os.path.relpath(entry.path.parent / 'README.md')
    return (f'{where}: {kind} data, see {readme}', )


def pretraining(
    cfg: Config, gpus: int, work_dir: Path, data_root: str | None,
    from_scratch: bool
) -> tuple[Step | None, dict[str, str], tuple[str, ...]]:
    """Return how to provide the weights that a config starts from.

    Returns:
        The step that trains them (or None), options for the training that
        follows, and files that the user must provide.
    """
    wanted = pretrained_file(cfg)
    if wanted is None:
        return None, {}, ()
    entry = trained_by(wanted)
    if is_there(wanted) and not (from_scratch and entry):
        return None, {}, ()
    if entry is None:
        pages = ' or '.join(pages_of(wanted))
        source = f' from {pages}' if pages else ''
        return None, {}, (f'weights/{wanted}{source}', )
    step, own = training_step(entry, gpus, work_dir,
                              f'pretraining on ImageNet: {entry.name}', {},
                              data_root)
    key = 'model.backbone.init_cfg.checkpoint'
    needs = () if step.makes.exists() else data_to_get(entry, own, data_root)
    return step, {key: str(step.makes)}, needs


def test_steps(entry: Entry, cfg: Config, gpus: int, checkpoint: Path,
               options: Mapping[str, Any],
               data_root: str | None) -> list[Step]:
    """Return the tests: as configured, and with scales and flips if any."""
    folder = checkpoint.parent
    data = ['--data-root', data_root] if data_root else []

    def words(out: Path, *flags: str) -> tuple[str, ...]:
        return tool('test', entry.path, gpus, str(checkpoint), '--work-dir',
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


def twin_of(entry: Entry) -> Entry:
    """Return the entry whose training produces the weights of another."""
    twin = entry.name.removesuffix('_testdev')
    return next((r for r in list_entries() if r.name == twin), entry)


def make_plan(name: str,
              gpus: int = 8,
              work_dir: str = 'work_dirs',
              data_root: str | None = None,
              imagenet: str | None = None,
              from_scratch: bool = False,
              options: Mapping[str, Any] | None = None) -> Plan:
    """Plan the steps that reproduce the result of a config.

    Args:
        name: Name of an entry, or path of its config.
        gpus: Number of GPUs; the batch stays that of the recipe.
        work_dir: Parent folder of the work dirs.
        data_root: Folder of the entry's data, instead of the default.
        imagenet: Folder of ImageNet for the pretraining, likewise.
        from_scratch: Pretrain even if released weights are available.
        options: ``--cfg-options`` of the entry, not of its pretraining.

    Raises:
        ValueError: If the entry does not exist or has no config, or if its
            batch is not divisible by the number of GPUs.
    """
    entry, options = load_entry(name), dict(options or {})
    folder = Path(work_dir)
    if gpus < 1:
        raise ValueError(f'gpus must be at least 1, got {gpus}')
    merged = get_config(entry)  # raises for an entry without
    merge_options(merged, options)
    step, start, needs = pretraining(merged, gpus, folder, imagenet,
                                     from_scratch)
    trained = twin_of(entry)
    training, cfg = training_step(trained, gpus, folder, 'training',
                                  {**start, **options}, data_root)
    tests = test_steps(entry, merged, gpus, training.makes, options, data_root)
    needs = (*data_to_get(entry, cfg, data_root), *needs)
    steps = [s for s in (step, training, *tests) if s is not None]
    return Plan(entry, gpus, tuple(steps), needs)
