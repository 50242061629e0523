# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Hooks, LoRA, quantization, pruning and replaced layers all take effect.

Fast paths compute with the parameters of layers that they do not call. They
must step aside wherever calling the layer is something else.
"""
import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.testing import assert_close

from hrformer_mm.core import HRFormer
from hrformer_mm.core.attention import WindowAttention
from hrformer_mm.core.blocks import FFN, Block
from hrformer_mm.core.cls_head import RepresentationHead
from hrformer_mm.core.kernels import cpu
from hrformer_mm.core.ocr import OCR
from hrformer_mm.deploy import optimize

ARCH = dict(channels=(4, 8, 8, 8), heads=(1, 2, 2, 2), modules=(1, 1, 1),
            blocks=1)  # yapf: disable
LAYERS = ('qkv', 'proj', 'fc1', 'fc2')


def randomized(model: nn.Module) -> nn.Module:
    """Draw parameters and statistics that differ from the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            low = .5 if 'norm' in name or 'bn' in name else -.5
            value.uniform_(low, 1., generator=generator)
    return model


@pytest.fixture(autouse=True)
def fast_products(monkeypatch):
    """Take the products of CPUs also where they are small."""
    monkeypatch.setattr(cpu, 'FEW_PRODUCTS', 0)
    torch.manual_seed(0)


@pytest.fixture
def block():
    return randomized(Block(6, 2, window_size=3)).eval()


MAP = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def backbone(**options):
    model = HRFormer(ARCH, window_size=3, **options)
    return randomized(model), [torch.randn(2, 3, 32, 40)]


def head(kind, *args, **options):
    maps = [torch.randn(2, 8, 8 >> i, 8 >> i) for i in range(4)]
    return randomized(kind((8, ) * 4, *args, **options)), [maps]


NETWORKS = {
    'transformer': backbone,
    'nodw': lambda: backbone(ffn='nodw'),
    'mlp': lambda: backbone(ffn='mlp', attention='shifted'),
    'recomputed': lambda: backbone(with_cp='ffn'),
    'conv': lambda: backbone(block='conv'),
    'ocr': lambda: head(OCR, 3, channels=8, ocr_channels=4),
    'cls': lambda: head(RepresentationHead),
}
CONTAINERS = (nn.ModuleList, nn.ModuleDict)


def hooks_that_fire(model, inputs, name):
    """Return the paths of the modules so named, and which hooks fired."""
    hooked = {
        path: m for path, m in model.named_modules()
        if path.rpartition('.')[2] == name and type(m) not in CONTAINERS
    }
    fired = set()
    hooks = [m.register_forward_hook(lambda *_, path=path: fired.add(path))
             for path, m in hooked.items()]
    model(*inputs)
    for hook in hooks:
        hook.remove()
    return set(hooked), fired


@pytest.mark.parametrize('mode', ['training', 'evaluation', 'optimized'])
@pytest.mark.parametrize('network', [
    name if name == 'transformer' else pytest.param(
        name, marks=pytest.mark.slow) for name in NETWORKS])
def test_forward_hooks_fire_on_every_submodule(network, mode):
    """Modules of one name at a time, so that others keep fast paths."""
    model, inputs = NETWORKS[network]()
    model.train(mode == 'training')
    model = optimize(model) if mode == 'optimized' else model
    names = {path.rpartition('.')[2] for path, _ in model.named_modules()}
    with torch.set_grad_enabled(mode == 'training'):
        for name in sorted(names):
            hooked, fired = hooks_that_fire(model, inputs, name)
            assert fired == hooked


@pytest.mark.parametrize('layer', ['attn.attn', *(
    f'attn.attn.{n}' for n in LAYERS[:2]), *(
        f'ffn.{n}' for n in ('fc1', 'norm1', 'act1', 'dw3x3', 'norm2', 'act2',
                             'fc2', 'norm3', 'act3'))])  # yapf: disable
@pytest.mark.parametrize('kind', ['forward', 'pre', 'global'])
def test_the_output_of_a_hook_is_used(block, layer, kind):
    module = block.get_submodule(layer)
    with torch.no_grad():
        before = block(MAP)
        if kind == 'forward':
            module.register_forward_hook(lambda m, args, out: out * 2)
        elif kind == 'pre':
            module.register_forward_pre_hook(
                lambda m, args: (args[0] * 2, *args[1:]))
        else:
            handle = nn.modules.module.register_module_forward_hook(
                lambda m, args, out: out * 2 if m is module else None)
        after = block(MAP)
        if kind == 'global':
            handle.remove()
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize('layer', LAYERS)
def test_backward_hooks_fire(block, layer):
    fired = []
    for name, module in block.named_modules():
        if name.endswith(layer):
            module.register_full_backward_hook(lambda *_: fired.append(1))
    block(MAP.clone().requires_grad_()).sum().backward()
    assert fired


class LoRA(nn.Module):
    """A layer plus a product of low rank, as parameter-efficient tuning."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        c_out, c_in = layer.weight.shape[:2]
        if isinstance(layer, nn.Conv2d):
            self.down = nn.Conv2d(c_in, 2, 1, bias=False)
            self.up = nn.Conv2d(2, c_out, 1, bias=False)
        else:
            self.down = nn.Linear(c_in, 2, bias=False)
            self.up = nn.Linear(2, c_out, bias=False)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))

    def merged(self) -> torch.Tensor:
        up, down = (m.weight.flatten(1) for m in (self.up, self.down))
        return self.layer.weight + (up @ down).view_as(self.layer.weight)


@pytest.mark.parametrize('size', [3, 2])  # with padding and without
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('layer', LAYERS)
def test_a_wrapped_layer_equals_its_merged_weights(layer, training, size,
                                                   path):
    """To 1e-5, as float32 sums in another order."""
    block = randomized(Block(6, 2, window_size=size)).train(training)
    x = MAP[:, :, :4]
    owner = block.attn.attn if layer in LAYERS[:2] else block.ffn
    merged, wrapper = copy.deepcopy(block), LoRA(getattr(owner, layer))
    setattr(owner, layer, wrapper)
    with torch.no_grad():
        merged.get_submodule(
            'attn.attn' if layer in LAYERS[:2] else 'ffn').get_submodule(
                layer).weight.copy_(wrapper.merged())
    with torch.set_grad_enabled(training):
        y, wanted = block(x), merged(x)
    assert_close(y, wanted, rtol=1e-5, atol=1e-5)
    if training:
        y.sum().backward()
        assert wrapper.up.weight.grad.abs().max() > 0


@pytest.mark.filterwarnings('ignore')
def test_dynamic_quantization_changes_the_output_a_little():
    """int8 weights: within 5 % of the float output, and not equal to it."""
    attn = randomized(WindowAttention(8, 2, 3)).eval()
    model = nn.Sequential(attn)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert type(quantized[0].attn.qkv) is not nn.Linear
    x = torch.randn(1, 6, 6, 8)
    with torch.no_grad():
        error = (quantized(x) - model(x)).norm() / model(x).norm()
    assert 0 < error < .05


@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('how', ['prune', 'parametrize'])
@pytest.mark.parametrize('training', [False, True])
def test_pruned_and_parametrized_weights_are_used(block, layer, how, training,
                                                  path):
    block.train(training)
    changed = copy.deepcopy(block)

    class Half(nn.Module):

        def forward(self, weight):
            return weight / 2

    for name, module in list(changed.named_modules()):
        if name.endswith(layer):
            weight = block.get_submodule(name).weight
            if how == 'prune':
                mask = torch.rand_like(weight) < .5
                prune.custom_from_mask(module, 'weight', mask)
                weight.data *= mask
            else:
                parametrize.register_parametrization(module, 'weight', Half())
                weight.data /= 2
    with torch.set_grad_enabled(training):
        assert_close(changed(MAP), block(MAP), rtol=1e-5, atol=1e-5)


REPLACED = {
    'act1': lambda: nn.ReLU(),
    'act2': lambda: nn.GELU('tanh'),
    'act3': lambda: nn.Identity(),
    'norm1': lambda: nn.GroupNorm(2, 24),
    'norm2': lambda: nn.Identity(),
    'norm3': lambda: nn.BatchNorm2d(6, affine=False),
    'fc1': lambda: nn.Conv2d(6, 24, 1),
    'dw3x3': lambda: nn.Conv2d(24, 24, 3, padding=1),
    'fc2': lambda: nn.Conv2d(24, 6, 1, bias=False),
}


@pytest.mark.parametrize('name', REPLACED)
@pytest.mark.parametrize('mode', ['training', 'evaluation', 'optimized'])
def test_a_replaced_layer_of_the_feed_forward_is_used(name, mode):
    """Equal to its layers one after the other, to 1e-5."""
    ffn = randomized(FFN(6, 24))
    setattr(ffn, name, randomized(REPLACED[name]()))
    ffn.train(mode == 'training')
    x = MAP.clone()
    wanted = x.permute(0, 3, 1, 2).contiguous()
    for layer in copy.deepcopy(ffn).children():
        wanted = layer(wanted)
    block = Block(6, 2, window_size=3)
    block.ffn = ffn
    if mode == 'optimized':
        ffn = optimize(block).ffn
    with torch.set_grad_enabled(mode == 'training'):
        y = ffn(x)
    assert torch.equal(x, MAP)
    assert_close(y, wanted.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_a_layer_that_returns_its_input_is_not_overwritten():
    ffn = FFN(6, 6).eval()
    ffn.fc1 = nn.Identity()
    x = MAP.clone()
    with torch.no_grad():
        ffn(x)
    assert torch.equal(x, MAP)


def test_replaced_attention_is_used(block):
    block.attn.attn = nn.Identity()
    block.attn.attn.forward = lambda x, mask=None: 2 * x
    assert_close(block.attn(MAP), 2 * MAP)
