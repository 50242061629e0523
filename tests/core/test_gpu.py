# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compare results of a GPU with the CPU and the authors' code.

``bash tools/run_tests.sh -m gpu`` runs the cases with CUDA, which are skipped
where there is none. Each test also runs on the CPU, which keeps it from
rotting on machines without a GPU and shows what it asserts.
"""
import copy
from collections.abc import Callable

import fake_gpu
import pytest
import torch
import torch.distributed as dist
from golden import Golden, gradients_of, outputs_of
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrformer_mm import zoo
from hrformer_mm.core.hrformer import HRFormer
from hrformer_mm.deploy.optimize import optimize

# Heads of 18 and 12 channels, which CUDA's kernels need padded to 24 and 16.
ARCH = dict(channels=(18, 24, 48, 96), heads=(1, 2, 4, 8), modules=(1, 1, 1))
CUDA = pytest.param(
    'cuda',
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
    ])
on_both = pytest.mark.parametrize('device', ['cpu', CUDA])


def on_cuda(*values):
    """One more case, with CUDA."""
    return [pytest.param('cuda', *values, marks=CUDA.marks)]


def slow_on_cpu(*values):
    """One more case on the CPU, where others show the same more cheaply."""
    return [pytest.param('cpu', *values, marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def full_precision():
    """Turn TF32 off, which rounds products of float32 to 10 bits."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    torch.manual_seed(0)
    yield
    for part, value in zip(parts, before):
        part.allow_tf32 = value


def make_model(**kwargs) -> HRFormer:
    """A small network with weights in which nothing is degenerate."""
    model = HRFormer(ARCH, **kwargs)
    for name, p in model.named_parameters():
        if name.endswith('bias_table'):
            nn.init.normal_(p, std=.5)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=.2)
            nn.init.uniform_(m.running_var, .5, 1.5)
    return model.eval()


def results(model: nn.Module,
            x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Maps, and gradients of their weighted sum, in float64 on the CPU."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    maps = model(x)
    generator = torch.Generator().manual_seed(1)
    torch.stack([(y.float() * torch.randn(y.shape, generator=generator).to(
        y.device)).sum() for y in maps]).sum().backward()
    grads = [x.grad, *(p.grad for p in model.parameters())]
    return [y.detach().double().cpu() for y in maps
            ], [g.double().cpu() for g in grads if g is not None]


def distance(xs: list[Tensor], references: list[Tensor]) -> float:
    """Relative distance of several tensors as if they were one."""
    assert len(xs) == len(references)
    error = torch.stack([(x - r).square().sum()
                         for x, r in zip(xs, references)]).sum()
    total = torch.stack([r.square().sum() for r in references]).sum()
    return (error / total).sqrt().item()


OPTIONS = (dict(window_size=13, rel_pos_bias=False), dict(window_size=7),
           dict(window_size=15), dict(attention='shifted', ffn='mlp'),
           dict(mask_padding=True, upsample='bilinear'))


@pytest.mark.parametrize('device, options', [
    ('cpu', OPTIONS[0]),
    *(case for options in OPTIONS[1:] for case in slow_on_cpu(options)),
    *(case for options in OPTIONS for case in on_cuda(options)),
], ids=str)
def test_outputs_and_gradients_equal_those_of_the_cpu(device, options):
    model = make_model(**options).double()
    x = torch.randn(2, 3, 70, 90, dtype=torch.float64)
    maps, grads = results(copy.deepcopy(model), x)
    found, found_grads = results(model.to(device), x.to(device))
    assert distance(found, maps) <= 1e-10
    assert distance(found_grads, grads) <= 1e-7  # the sum is in float32
    found, found_grads = results(model.float(), x.to(device).float())
    assert distance(found, maps) <= 1e-5
    assert distance(found_grads, grads) <= 2e-2  # a ReLU may flip


@pytest.mark.parametrize('device, name', [
    *slow_on_cpu('pose_t'),
    *(case for name in ('cls_t_200x260', 'pose_t', 'seg_t_w13', 'pose_b')
      for case in on_cuda(name)),
])
def test_official_weights_reproduce_official_results(device, name, tmp_path):
    golden = Golden.read(name)
    golden.meta['task'] = task = name.split('_')[0]
    cfg = Config.fromfile(CONFIGS / golden.meta['config'])
    cfg.merge_from_dict(golden.meta['overrides'])
    model = zoo.build_model(cfg, device='cpu').eval()
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    load_checkpoint(model, str(tmp_path / 'official.pth'), strict=True)
    model.to(device).double()
    with torch.no_grad():
        found = outputs_of(model, task, golden.input().to(device).double())
    golden.assert_outputs_equal({k: x.cpu() for k, x in found.items()})
    image_grad, grads = gradients_of(model, golden, torch.float64, device)
    golden.assert_gradients_equal(
        image_grad.cpu(), {k: g.cpu() for k, g in grads.items()}, 1e-6)


@pytest.mark.parametrize('device, dtype, tolerance', [
    ('cpu', torch.bfloat16, 5e-2),
    *on_cuda(torch.bfloat16, 5e-2),
    *on_cuda(torch.float16, 1e-2),
])
def test_mixed_precision_stays_near_full_precision(device, dtype, tolerance):
    model = make_model().to(device)
    x = torch.randn(2, 3, 64, 96, device=device)
    maps, _ = results(model, x)
    with torch.autocast(device, dtype):
        found, grads = results(model, x)
    assert 0 < distance(found, maps) <= tolerance
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize('device, backend', [
    *slow_on_cpu('aot_eager'), *on_cuda('inductor')])  # yapf: disable
def test_compiled_networks_have_equal_results(device, backend):
    model = make_model().to(device)
    x = torch.randn(2, 3, 64, 96, device=device)
    maps, grads = results(model, x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    found, found_grads = results(compiled, x)
    torch._dynamo.reset()
    assert distance(found, maps) <= 1e-5
    assert distance(found_grads, grads) <= 2e-2


def captured(model: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """A function that computes the maps of what is in ``x`` by then.

    On a GPU it replays a CUDA graph.
    """
    if x.device.type == 'cpu':
        return lambda: model(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        maps = model(x)

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return maps

    return replay


@pytest.mark.parametrize('options', [
    dict(), dict(attention='shifted', mask_padding=True)], ids=str)
@on_both
@torch.no_grad()
def test_forward_passes_can_be_captured_as_cuda_graphs(device, options):
    model = make_model(**options).to(device)
    x = torch.randn(2, 3, 70, 90, device=device)
    replay = captured(model, x)
    x.copy_(torch.randn_like(x))
    found = [y.double().cpu() for y in replay()]
    maps = [y.double().cpu() for y in model(x)]
    assert distance(found, maps) <= 1e-6


def peak_memory(device: str) -> int:
    """Bytes at the fullest moment since the last call; 0 on the CPU."""
    if device == 'cpu':
        return 0
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


@pytest.mark.parametrize('with_cp', [True, 'ffn'])
@on_both
def test_checkpointing_changes_nothing_but_memory(device, with_cp):
    plain = make_model().to(device).train()
    saving = make_model(with_cp=with_cp).to(device).train()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 128, 128, device=device)
    peak_memory(device)
    maps, grads = results(plain, x)
    whole = peak_memory(device)
    found, found_grads = results(saving, x)
    assert peak_memory(device) <= whole
    assert distance(found, maps) <= 1e-6
    assert distance(found_grads, grads) <= 2e-2
    for (name, mine), theirs in zip(saving.named_buffers(), plain.buffers()):
        torch.testing.assert_close(mine, theirs, msg=name)


@pytest.mark.parametrize('device, dtype, tolerance', [
    ('cpu', torch.float32, 1e-4),
    ('cpu', torch.bfloat16, 5e-2),
    *on_cuda(torch.float32, 1e-4),
    *on_cuda(torch.bfloat16, 5e-2),
    *on_cuda(torch.float16, 1e-2),
])
@torch.no_grad()
def test_optimized_networks_return_the_same_maps(device, dtype, tolerance):
    model = make_model().to(device)
    x = torch.randn(2, 3, 64, 96, device=device)
    fast = optimize(model, dtype)
    maps = [y.double().cpu() for y in model(x)]
    found = [y.double().cpu() for y in fast(x)]
    assert distance(found, maps) <= tolerance


@pytest.fixture
def one_process(device):
    """A process group of this process, of the device's usual backend."""
    dist.init_process_group(
        'nccl' if device == 'cuda' else 'gloo',
        store=dist.HashStore(), rank=0, world_size=1)  # yapf: disable
    yield
    dist.destroy_process_group()


@on_both
def test_distributed_training_of_one_process_equals_plain(device, one_process):
    model = make_model().to(device).train()
    x = torch.randn(2, 3, 64, 96, device=device)
    maps, grads = results(copy.deepcopy(model), x)
    if device == 'cuda':  # torch's synchronised norms take no CPU tensors
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    found, found_grads = results(DistributedDataParallel(model), x)
    assert distance(found, maps) <= 1e-5
    assert distance(found_grads, grads) <= 2e-2


@pytest.mark.parametrize('device, backend', [
    ('cpu', 'FLASH_ATTENTION'), *on_cuda('EFFICIENT_ATTENTION')
])
@torch.no_grad()
def test_a_fused_kernel_takes_the_attention(device, backend):
    """Without it, torch would write out the scores of all windows."""
    pytest.importorskip('torch.nn.attention', reason='needs torch >= 2.3')
    from torch.nn.attention import SDPBackend, sdpa_kernel
    model = make_model().to(device)
    x = torch.randn(1, 3, 64, 96, device=device)
    with sdpa_kernel(getattr(SDPBackend, backend)), torch.autocast(
            device, torch.bfloat16):
        maps = model(x)
    assert all(y.isfinite().all() for y in maps)


SEG = 'seg/hrformer_t_camvid_196x252.py'
OTHERS = ('cls/hrformer_t_imagenet_224.py', 'pose/hrformer_t_coco_256x192.py')


@pytest.mark.parametrize('device, name', [
    ('cpu', SEG),
    *(case for name in OTHERS for case in slow_on_cpu(name)),
    *(case for name in (SEG, *OTHERS) for case in on_cuda(name)),
])
def test_a_training_step_changes_the_weights(device, name):
    """In half precision on a GPU, as the configs train there."""
    cfg = Config.fromfile(CONFIGS / name)
    scope, shape = cfg.default_scope, list(zoo.input_size(cfg.filename))
    if device == 'cpu':
        shape = [n // 2 for n in shape]
        if scope == 'mmpose':
            width, height = cfg.codec.heatmap_size
            cfg.codec.heatmap_size = (width // 2, height // 2)
    model = zoo.build_model(cfg, device='cpu').to(device).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    dtype = torch.float16 if device == 'cuda' else torch.bfloat16
    with DefaultScope.overwrite_default_scope(scope):
        samples = fake_gpu.SAMPLES[scope](cfg, shape, torch.device(device))
        image = torch.randn(fake_gpu.BATCH, 3, *shape, device=device)
        with torch.autocast(device, dtype, enabled=device == 'cuda'):
            losses = model(image, samples, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    after = model.state_dict()
    assert all(v.isfinite().all() for v in after.values())
    changed = [k for k, v in after.items() if not torch.equal(v, before[k])]
    assert len(changed) > .9 * len(after)
