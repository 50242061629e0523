# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The OCR head inside MMSegmentation."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

import hrformer_mm  # noqa: F401

CHANNELS = (18, 36, 72, 144)


def make_model(**head):
    """HRFormer-T with a small head."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    head = {**dict(num_classes=4, channels=16, ocr_channels=8), **head}
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='hrformer_mm.RandomPadPreProcessor', size=(64, 64)),
            backbone=dict(type='hrformer_mm.HRFormer', arch='tiny'),
            decode_head=dict(
                type='hrformer_mm.OCRHead', in_channels=CHANNELS, **head),
            test_cfg=ConfigDict(mode='whole')))


@pytest.fixture(scope='module')
def model():
    return make_model().eval()


def sample(label, **meta):
    height, width = label.shape
    size = dict(
        img_shape=(height, width),
        ori_shape=(height, width),
        pad_shape=(height, width))
    result = SegDataSample(metainfo={**size, **meta})
    result.gt_sem_seg = PixelData(data=label[None])
    return result


def batch(classes=4, size=64, images=2, ignored=0.2):
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (images, size, size), generator=rng)
    labels[torch.rand(labels.shape, generator=rng) < ignored] = 255
    images = torch.randn(images, 3, size, size, generator=rng)
    return images, [sample(label) for label in labels]


def losses_of(model, *args, **kwargs):
    return model.train().loss(*batch(*args, **kwargs))


def test_losses_and_accuracies_of_both_branches_are_logged():
    losses = losses_of(make_model())
    assert set(losses) == {
        'decode.loss_ohem', 'decode.acc_seg', 'decode.loss_aux',
        'decode.acc_aux'
    }
    assert all(torch.isfinite(x).all() for x in losses.values())


def test_auxiliary_loss_weighs_as_in_the_official_code():
    model = make_model(loss_decode=dict(
        type='hrformer_mm.PixelCrossEntropyLoss'))
    head, logits = model.decode_head, torch.randn(1, 4, 5, 5)
    labels = torch.randint(0, 4, (1, 9, 9))
    main = head.loss_decode(head.enlarge(logits, (9, 9)), labels)
    aux = head.loss_aux(head.enlarge(logits, (9, 9)), labels)
    assert_close(aux, 0.4 * main)


def test_losses_of_one_name_add_up():
    loss = dict(type='hrformer_mm.PixelCrossEntropyLoss')
    once, twice = (losses_of(make_model(loss_decode=x))['decode.loss_ce']
                   for x in (loss, [loss, loss]))
    assert_close(twice, 2 * once)


def test_the_auxiliary_loss_can_be_disabled():
    losses = losses_of(make_model(loss_aux=None))
    assert set(losses) == {'decode.loss_ohem', 'decode.acc_seg'}


@pytest.mark.parametrize('head, classes', [
    (dict(num_classes=2), 2),
    (dict(num_classes=2, out_channels=1, threshold=0.5), 2),
    (dict(num_classes=1), 1),
], ids=['two logits', 'one logit', 'one class'])
def test_few_classes_train_with_ignored_pixels(head, classes):
    model = make_model(**head)
    losses = losses_of(model, classes, images=1)
    total = sum(v for k, v in losses.items() if 'loss' in k)
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    images, samples = batch(classes)
    labels = model.eval().predict(images, samples)[0].pred_sem_seg.data
    assert set(labels.unique().tolist()) <= {0, 1}


def test_accuracy_of_one_logit_uses_its_sign():
    head = make_model(num_classes=2, out_channels=1).decode_head
    logits = torch.tensor([[[[3., -2.], [1., -1.]]]])
    labels = torch.tensor([[[1, 0], [0, 255]]])
    result = head.judge(logits, labels, [], 'acc')
    assert_close(result['acc'], torch.tensor([200 / 3]))


def test_mixed_precision_has_losses_in_full_precision():
    model = make_model()
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model)
    total = losses['decode.loss_ohem'] + losses['decode.loss_aux']
    total.backward()
    assert total.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_batch_without_labels_has_zero_loss():
    losses = losses_of(make_model(), ignored=2.)
    assert losses['decode.loss_ohem'] == losses['decode.loss_aux'] == 0


def test_whole_and_sliding_agree_where_one_window_covers_all(model):
    images, samples = batch()
    whole = model.predict(images, samples)[0].seg_logits.data.clone()
    model.test_cfg = ConfigDict(
        mode='slide', crop_size=(64, 64), stride=(32, 32))
    slide = model.predict(images, samples)[0].seg_logits.data
    model.test_cfg = ConfigDict(mode='whole')
    assert_close(whole, slide)


def test_sliding_covers_an_image_of_any_size(model):
    model.test_cfg = ConfigDict(
        mode='slide', crop_size=(64, 64), stride=(40, 40))
    label = torch.zeros(90, 101, dtype=torch.long)
    out = model.predict(torch.randn(1, 3, 90, 101), [sample(label)])
    model.test_cfg = ConfigDict(mode='whole')
    assert out[0].pred_sem_seg.shape == (90, 101)


def test_logits_have_the_size_of_the_original_image(model):
    label = torch.zeros(50, 70, dtype=torch.long)
    out = model.predict(
        torch.randn(1, 3, 64, 96),
        [sample(label, img_shape=(64, 96), pad_shape=(64, 96))])
    assert out[0].seg_logits.shape == out[0].pred_sem_seg.shape == (50, 70)


def test_sync_bn_converts_every_norm_of_the_head():
    head = torch.nn.SyncBatchNorm.convert_sync_batchnorm(
        make_model().decode_head)
    assert not any(
        isinstance(m, torch.nn.BatchNorm2d) for m in head.modules())


def test_class_weights_of_a_wrong_length_are_rejected():
    weights = dict(
        type='hrformer_mm.OHEMCrossEntropyLoss', class_weight=[1., 2.])
    with pytest.raises(ValueError, match='class_weight must have 4 numbers'):
        losses_of(make_model(loss_decode=weights))


def test_class_weights_move_with_the_model_but_are_not_saved():
    model = make_model(loss_decode=dict(
        type='hrformer_mm.OHEMCrossEntropyLoss', class_weight=[1.] * 4))
    loss = model.decode_head.loss_decode
    assert 'class_weight' in dict(loss.named_buffers())
    assert not any('class_weight' in key for key in model.state_dict())


def saved_bytes(run) -> int:
    """Memory that a forward pass keeps for the backward one."""
    kept = {}

    def pack(x):
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), x)
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(size for size, _ in kept.values())


def cascade(channels=64, ocr_channels=32):
    """MMSegmentation's two heads, with the official settings."""
    common = dict(
        in_channels=CHANNELS,
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=channels,
        num_classes=19,
        norm_cfg=dict(type='BN'),
        align_corners=True)
    first = MODELS.build(
        dict(
            type='mmseg.FCNHead',
            kernel_size=3,
            num_convs=1,
            concat_input=False,
            dropout_ratio=0.,
            **common))
    second = MODELS.build(
        dict(
            type='mmseg.OCRHead',
            ocr_channels=ocr_channels,
            dropout_ratio=0.05,
            **common))

    def run(maps):
        guess = first(maps)
        return second(maps, guess), guess

    return run


def ours(channels=64, ocr_channels=32):
    from hrformer_mm.core.ocr import OCR
    return OCR(CHANNELS, 19, channels, ocr_channels)


def random_maps():
    return [
        torch.randn(1, c, 32 // 2**i, 64 // 2**i, requires_grad=True)
        for i, c in enumerate(CHANNELS)
    ]


def test_the_head_saves_less_for_backward_than_mmsegmentations_heads():
    maps = random_maps()
    theirs = saved_bytes(lambda: cascade()(maps))
    mine = saved_bytes(lambda: ours()(maps))
    assert mine <= 0.85 * theirs  # measured 0.74


def test_the_peak_memory_is_not_above_that_of_mmsegmentations_heads():
    """All allocations of a forward and backward pass, less what was freed."""
    peaks = []
    for head in (ours(), cascade()):
        maps = random_maps()
        with torch.profiler.profile(profile_memory=True) as profile:
            sum(x.mean() for x in head(maps)).backward()
        running = peak = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == '[memory]':
                running += event.nbytes()
                peak = max(peak, running)
        peaks.append(peak)
    assert 0 < peaks[0] <= peaks[1]


def test_mmsegmentations_inferencer_accepts_config_and_weights(tmp_path):
    from helpers import CONFIGS
    from mmseg.apis import MMSegInferencer
    cfg = Config.fromfile(CONFIGS / 'seg/hrformer_t_synthetic_112x224.py')
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), 'u1')
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    cfg.dump(tmp_path / 'config.py')
    infer = MMSegInferencer(
        str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth'),
        device='cpu')
    result = infer(str(tmp_path / 'image.png'), out_dir=str(tmp_path / 'out'))
    assert np.array(result['predictions']).shape == (60, 90)
    assert (tmp_path / 'out/vis/image.png').exists()


@pytest.mark.parametrize('window', [5, (9, 7, 5, 3)], ids=str)
def test_pretrained_weights_load_into_any_window_size(window, tmp_path):
    """All tensors are taken over, tables after interpolation."""
    arch = dict(channels=(8, 16, 32, 64), heads=(1, 2, 4, 8),
                modules=(1, 1, 1), blocks=1)  # yapf: disable
    backbone = dict(type='hrformer_mm.HRFormer', arch=arch)
    init_default_scope('mmseg')
    source = MODELS.build(backbone).state_dict()
    torch.save(dict(model=source), tmp_path / 'imagenet.pth')
    model = MODELS.build(
        dict(
            backbone,
            window_size=window,
            init_cfg=dict(
                type='Pretrained',
                checkpoint=str(tmp_path / 'imagenet.pth'))))
    model.init_weights()
    for name, value in model.state_dict().items():
        if value.shape == source[name].shape:
            assert torch.equal(value, source[name]), name
        else:
            assert name.endswith('relative_position_bias_table')
            assert value.std() < 0.03  # drawn with 0.02, then smoothed


def test_pretrained_weights_of_hrnet_load(tmp_path):
    args = dict(
        type='hrformer_mm.HRFormer', block='conv',
        arch=dict(channels=(8, 16, 32, 64), heads=(1, 1, 1, 1),
                  modules=(1, 1, 1), blocks=2))  # yapf: disable
    init_default_scope('mmseg')
    source = MODELS.build(args).state_dict()
    head = {'incre_modules.0.0.conv1.weight': torch.zeros(32, 8, 1, 1),
            'classifier.weight': torch.zeros(10, 8)}  # yapf: disable
    path = str(tmp_path / 'hrnetv2_imagenet_pretrained.pth')
    torch.save({**source, **head}, path)
    model = MODELS.build(
        dict(args, init_cfg=dict(type='Pretrained', checkpoint=path)))
    model.init_weights()
    assert_close(dict(model.state_dict()), dict(source), rtol=0, atol=0)


@pytest.mark.parametrize('ignore_index', [255, 0, None])
@pytest.mark.parametrize('classes', [1, 2, 19])
def test_accuracy_equals_that_of_mmsegmentation(classes, ignore_index):
    from mmseg.models.losses import accuracy

    from hrformer_mm.core.losses import pixel_accuracy, two_classes
    torch.manual_seed(0)
    logits = torch.randn(2, classes, 9, 8)
    labels = torch.randint(max(classes, 2), (2, 9, 8))
    unlabelled = torch.full_like(labels, ignore_index or 0)
    for target in (labels, unlabelled):
        theirs = accuracy(
            two_classes(logits), target, ignore_index=ignore_index)
        mine = pixel_accuracy(logits, target, ignore_index)
        # torch's count is a float32, which is off by some 1e-7
        assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
