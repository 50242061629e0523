# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Load checkpoints into models: state-dict hooks and ``Pretrained``.

A backbone reads any layout through :func:`match_state_dict`. The model that
owns it reads whole checkpoints of any layout through :func:`match_model`;
:func:`await_owner` registers this hook on the model that adds the backbone as
``backbone``, which covers ``load_from``, ``--resume`` and the inferencers.
Everything is checked before the first tensor is copied.
"""
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from ..core.hrformer import HRFormer
from ..tasks import TASKS
from ..utils.config_checks import check_checkpoint
from .convert import (
    MARK,
    SEMANTICS,
    ConversionReport,
    StateDict,
    convert,
    first_few,
    interpolate_table,
    unwrap,
    window_of,
)
from .files import URL, PathLike, find_file, find_local, read_checkpoint
from .guard import guard_predictions, is_for_training
from .keymap import BACKBONE, INDEX, TABLE, task_of
from .weights_index import direct_urls

OPT_OUT = ("; init_cfg=dict(type='Pretrained', checkpoint=..., strict=False) "
           'of the backbone loads the rest')


def is_unused(name: str, backbone: HRFormer) -> bool:
    """Whether a tensor of an HRFormer is not used by this backbone."""
    final = len(backbone.arch.channels)
    if final == 3 and name.startswith(('transition3.', 'stage4.')):
        return True
    if name.endswith(INDEX):
        return True
    if name.endswith(TABLE):
        return not backbone.rel_pos_bias
    last = f'stage{final}.{backbone.arch.modules[-1] - 1}.fuse_layers.'
    branch = name[len(last):].partition('.')[0]
    return (name.startswith(last) and branch.isdigit()
            and int(branch) in range(4)
            and int(branch) not in backbone.out_indices)


def select_tensors(tensors: Mapping[str, Tensor], backbone: HRFormer,
                   report: ConversionReport, strict: bool) -> StateDict:
    """Select the tensors of a backbone and check their shapes; copy nothing.

    Args:
        tensors: Tensors in our layout, without the prefix ``backbone.``.
        backbone: Backbone to load them into.
        report: Report whose counts are filled in.
        strict: Require all tensors of the backbone and no others.

    Raises:
        RuntimeError: If a shape is wrong or, with ``strict``, tensors are
            missing or unexpected.
    """
    own, fitting, misfits = backbone.state_dict(), OrderedDict(), []
    for name, mine in own.items():
        if name not in tensors:
            continue
        value = tensors[name]
        if name.endswith(TABLE) and value.shape != mine.shape and \
                value.shape[1:] == mine.shape[1:]:
            value = interpolate_table(value, window_of(mine))
            report.interpolated.append(name)
        if value.shape != mine.shape:
            misfits.append(f'{name} is {tuple(value.shape)}, not '
                           f'{tuple(mine.shape)}')
        fitting[name] = value
    # Old files lack num_batches_tracked.
    missing = [
        k for k in own
        if k not in fitting and not k.endswith('num_batches_tracked')
    ]
    extra = [k for k in tensors if k not in own]
    unexpected = [k for k in extra if not is_unused(k, backbone)]
    report.dropped += [k for k in extra if is_unused(k, backbone)]
    report.matched = len(fitting) - len(misfits)
    report.missing += missing
    report.unexpected += unexpected
    if misfits:
        refuse(report, f'{len(misfits)} of its {len(own)} tensors have '
               'another shape', misfits)
    if missing and strict:
        refuse(report, f'{len(missing)} of its {len(own)} tensors are missing',
               missing, OPT_OUT)
    if unexpected and strict:
        refuse(report, f'{len(unexpected)} unexpected keys', unexpected,
               OPT_OUT)
    return fitting


def refuse(report: ConversionReport,
           problem: str,
           names: list[str],
           way_out: str = ''):
    """Raise a one-line RuntimeError for weights that do not fit."""
    raise RuntimeError(
        f'these {report.source} weights do not fit the backbone, nothing was '
        f'loaded: {problem}{first_few(names)}{way_out}')


def match_state_dict(backbone: HRFormer, state_dict: dict[str, Tensor],
                     prefix: str, local_metadata: Mapping, *args):
    """Convert weights of any layout (load hook of a backbone).

    Raises:
        RuntimeError: If the weights do not cover the backbone.
        ValueError: If they are not the weights of an HRFormer.
    """
    found = inside(state_dict, prefix)
    if not found:
        return
    semantics = local_metadata.get(MARK, {})
    if not is_exact(found, backbone):
        tensors, report = convert(found)
        fitting = select_tensors(backbone_of(tensors), backbone, report, True)
        report.dropped += head_tensors(tensors)
        replace(state_dict, prefix, fitting)
        print_log(str(report), 'current')
        semantics = {**report.semantics, **semantics}
    warn_of_contradictions(semantics, backbone)


def match_model(model: nn.Module, state_dict: dict[str, Tensor], prefix: str,
                *args):
    """Convert weights of any layout (load hook of a model with a backbone).

    Heads are left to the framework, which reports mismatches.

    Raises:
        RuntimeError: If the weights do not cover the backbone.
        ValueError: If they are not the weights of an HRFormer.
    """
    found, own = inside(state_dict, prefix), model.state_dict()
    if not isinstance(model.backbone, HRFormer):
        return  # compiled or distributed by itself; its own hook converts
    if all(k in own and not k.startswith(BACKBONE) for k in unwrap(found)):
        return  # nothing, or a head alone
    tensors, report = convert(found)
    fitting = OrderedDict((BACKBONE + k, v) for k, v in select_tensors(
        backbone_of(tensors), model.backbone, report, True).items())
    for key in head_tensors(tensors):
        if report.source == 'ours' or key in own or key in report.unexpected:
            fitting[key] = tensors[key]
        else:  # the head of another task is dropped without a warning
            report.dropped.append(key)
    report.matched = sum(k in own for k in fitting)
    report.missing += random_heads(model, fitting)
    replace(state_dict, prefix, fitting)
    if report.source != 'ours' or report.interpolated:
        print_log(str(report), 'current')
    if report.source != 'ours':  # ours are checked by the backbone's hook
        warn_of_contradictions(report.semantics, model.backbone)


def random_heads(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the parameters outside the backbone that tensors do not fill."""
    return [
        k for k, p in model.named_parameters()
        if not k.startswith(BACKBONE) and (
            k not in tensors or tensors[k].shape != p.shape)
    ]


def inside(state_dict: Mapping, prefix: str) -> Mapping:
    """Return the tensors of a module without its prefix, with metadata."""
    found = OrderedDict((k[len(prefix):], v) for k, v in state_dict.items()
                        if k.startswith(prefix))
    metadata = getattr(state_dict, '_metadata', {})
    found._metadata = metadata  # type: ignore[attr-defined]
    return found


def replace(state_dict: dict[str, Tensor], prefix: str, tensors: StateDict):
    for key in [k for k in state_dict if k.startswith(prefix)]:
        del state_dict[key]
    state_dict.update((prefix + k, v) for k, v in tensors.items())


def is_exact(tensors: Mapping[str, Tensor], module: nn.Module) -> bool:
    own = module.state_dict()
    return tensors.keys() == own.keys() and all(
        isinstance(v, Tensor) and v.shape == own[k].shape
        for k, v in tensors.items())


def backbone_of(tensors: StateDict) -> StateDict:
    """Return the tensors of the backbone without the prefix ``backbone.``."""
    return OrderedDict((k[len(BACKBONE):], v) for k, v in tensors.items()
                       if k.startswith(BACKBONE))


def head_tensors(tensors: StateDict) -> list[str]:
    """Return the names of all tensors outside the backbone."""
    return [k for k in tensors if not k.startswith(BACKBONE)]


def warn_of_contradictions(semantics: Mapping[str, Any],
                           backbone: HRFormer,
                           names: Sequence[str] = SEMANTICS):
    """Warn in one line if weights were trained with other model semantics.

    Such weights still load, as all tensors fit, but the outputs differ.
    """
    if backbone.block == 'conv':
        names = [k for k in names if k == 'upsample']  # it has no attention
    wrong = {
        k: semantics[k]
        for k in names
        if k in semantics and semantics[k] != getattr(backbone, k)
    }
    if wrong:
        args = ', '.join(f'{k}={v!r}' for k, v in wrong.items())
        has = ', '.join(f'{k}={getattr(backbone, k)!r}' for k in wrong)
        sets = ' '.join(f'model.backbone.{k}={v}' for k, v in wrong.items())
        print_log(
            f'the weights were trained with {args}, but the backbone has '
            f'{has}: outputs will differ; fix: --cfg-options {sets}',
            'current', logging.WARNING)


def current_task() -> str | None:
    """Return the task of the framework of the current default scope."""
    scope = DefaultScope.get_current_instance()
    task = TASKS.get(scope.scope_name) if scope else None
    return task.name if task else None


def comparable(source: str | None,
               target: str | None) -> Sequence[str]:
    """Return the model semantics in which backbone and weights must agree.

    Each task has its own fusion, and weights of another task are fine-tuned
    anyway. The position bias is learned in classification, from which
    training starts; pose and segmentation use it as their recipes say.

    Args:
        source: Task of the weights, or ``None`` for a backbone alone.
        target: Task of the model, or ``None`` if unknown.
    """
    if source == 'cls':
        return ('rel_pos_bias', )
    is_transfer = None not in (source, target) and source != target
    return () if is_transfer else SEMANTICS


def write_semantics(backbone: HRFormer, state_dict: StateDict, prefix: str,
                    local_metadata: dict[str, Any]):
    """Store the model semantics in checkpoints (save hook of a backbone)."""
    local_metadata[MARK] = {k: getattr(backbone, k) for k in SEMANTICS}


def load_pretrained(backbone: HRFormer,
                    checkpoint: PathLike,
                    prefix: str | None = None,
                    map_location: Any = 'cpu',
                    strict: bool = True) -> ConversionReport:
    """Load the weights of an ``init_cfg`` of type Pretrained.

    Args:
        backbone: Backbone to load the weights into.
        checkpoint: Path, name or URL, see
            :func:`~hrformer_mm.checkpoints.files.find_file`.
        prefix: Key prefix of the backbone, if a file holds several.
        map_location: Device of the tensors, as in ``torch.load``.
        strict: Require all tensors of the backbone. Otherwise missing ones
            keep their initial values.

    Raises:
        FileNotFoundError: If the file is not found.
        RuntimeError: If the weights do not cover the backbone.
        ValueError: If the file is not an HRFormer checkpoint or is unsafe.
    """
    path = find_file(checkpoint)
    tensors, report = convert(
        read_checkpoint(path, map_location), prefix=prefix or '')
    target = getattr(backbone, 'task', None) or current_task()
    names = comparable(task_of(tensors), target)
    fitting = select_tensors(backbone_of(tensors), backbone, report, strict)
    report.dropped += head_tensors(tensors)
    own = backbone.state_dict()
    with torch.no_grad():
        for name, value in fitting.items():
            own[name].copy_(value)
    print_log(f'{path.name}: {report}', 'current')
    warn_of_contradictions(report.semantics, backbone, names)
    return report


def await_owner(backbone: HRFormer):
    """Register :func:`match_model` on the model that will own a backbone.

    Only the whole model sees the heads of a foreign checkpoint, and its class
    belongs to the framework. A global hook therefore waits, from the
    construction of the backbone until it is added to a module, and is then
    removed; :func:`match_model` stays on that module if it calls the backbone
    ``backbone``.
    """
    awaited = weakref.ref(backbone)

    def adopt(owner: nn.Module, name: str, child: nn.Module | None):
        if child is None or child is not awaited():
            return
        handle.remove()
        abandoned.detach()
        hooks = owner._load_state_dict_pre_hooks.values()
        is_hooked = any(getattr(h, 'hook', h) is match_model for h in hooks)
        if name == 'backbone' and not is_hooked:
            owner._register_load_state_dict_pre_hook(
                match_model, with_module=True)
            guard_predictions(owner, whole=False)

    handle = register_module_module_registration_hook(adopt)
    abandoned = weakref.finalize(backbone, handle.remove)
    abandoned.atexit = False


def locate_checkpoint(path: str) -> str:
    """Return the path of a checkpoint that is given by path, name or URL.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    is_url = bool(URL.match(path))
    if not os.path.isfile(path) and (is_url or os.path.basename(path) == path):
        found = find_local(path)
        if found is None and (is_url or direct_urls(path)):
            found = find_file(path)
        path = str(found or path)
    check_checkpoint(path)
    return path


def load_weights(model: nn.Module, path: str | os.PathLike) -> dict:
    """Load all weights of a model from a file of any layout.

    Args:
        model: Model to load them into.
        path: Path, name or URL of the checkpoint.

    Returns:
        Metadata (``dataset_meta``) of the training dataset, if stored.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a tensor of the model is missing or has another shape,
            as predictions would be random.
    """
    path = locate_checkpoint(os.fspath(path))
    checkpoint = read_checkpoint(path)
    tensors = {
        k[7:] if k.startswith('module.') else k: v
        for k, v in unwrap(checkpoint).items()
    }
    own = model.state_dict()
    misfits = [k for k, v in tensors.items() if k in own and not k.startswith(
        'backbone.') and v.shape != own[k].shape]  # yapf: disable
    if misfits:
        raise ValueError(f'{path} is of another config: its shapes differ '
                         f'from those of the model for{first_few(misfits)}')
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    missing = [k for k in missing if not (
        k.endswith('num_batches_tracked') or is_for_training(k))]
    if missing:
        raise ValueError(f'{path} lacks {len(missing)} of the tensors of the '
                         f'model{first_few(missing)}; weights of a backbone '
                         'alone are for training')
    return checkpoint.get('meta', {}).get('dataset_meta') or {}
