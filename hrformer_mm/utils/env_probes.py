# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Probes: one function per known fault of the stack, which fails with it.

:mod:`hrformer_mm.check_env` runs each in a process of its own, with and
without importing hrformer_mm first. So this file does not import hrformer_mm,
and a probe imports only the packages it tests.
"""
import os
import tempfile
from importlib import import_module


def remark(text: str):
    print(f'remark: {text}')


def torch_imports():
    import torch
    assert torch.from_numpy(torch.ones(2).numpy()).sum() == 2
    gpu = 'no GPU found'
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    remark(f'CUDA {torch.version.cuda}, {gpu}')


def torchvision_fits():
    import torch
    from torchvision import ops
    boxes = torch.tensor([[0., 0, 2, 2], [0, 0, 2, 2]])
    assert len(ops.nms(boxes, torch.ones(2), .5)) == 1


def opencv_imports():
    import cv2
    import numpy as np
    assert cv2.resize(np.zeros((4, 4, 3), 'u1'), (2, 2)).shape == (2, 2, 3)


def pkg_resources_is_there():
    from mmengine.utils import get_installed_path
    get_installed_path('mmengine')


def runner_checkpoint_loads():
    import numpy as np
    import torch
    from mmengine.logging import MessageHub
    from mmengine.runner import load_checkpoint
    hub = MessageHub.get_instance('probe')
    for value in (1., np.float32(2), np.float64(3), np.int64(4)):
        hub.update_scalar('loss', value)
    model = torch.nn.Linear(2, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'epoch_1.pth')
        torch.save(
            dict(
                meta=dict(epoch=1),
                state_dict=model.state_dict(),
                message_hub=hub.state_dict()), path)
        loaded = load_checkpoint(torch.nn.Linear(2, 2), path)
    scalars = loaded['message_hub']['log_scalars']
    assert scalars['loss'].current() == 4


def mmcv_is_there_once():
    from importlib.metadata import distributions
    names = {d.metadata['Name'] for d in distributions()}
    found = names & {'mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'}
    assert len(found) == 1, f'{sorted(found)} overwrite each other'


def mmcv_ops_import():
    from mmcv import ops
    ops.nms
    import mmcv._ext as ext
    if not getattr(ext, '__file__', None):
        remark('no compiled ops; those of detectors run through torchvision')


def mmpose_models_import():
    import_module('mmpose.models')
    import_module('mmpose.apis')


def mmseg_models_import():
    import_module('mmseg.models')
    import_module('mmseg.apis')


def mmpretrain_models_import():
    import_module('mmpretrain.models')
    import_module('mmpretrain.apis')


def mmdet_models_import():
    import_module('mmdet.models')
    import_module('mmdet.apis')


def xtcocotools_fits():
    import numpy as np
    from xtcocotools import coco, cocoeval, mask
    assert coco.COCO and cocoeval.COCOeval
    # A build for numpy 2 fails only here.
    whole = mask.encode(np.ones((2, 2, 1), 'u1', order='F'))
    assert mask.decode(whole).sum() == 4
    if 'hrformer_mm' in mask.__file__:
        remark('through pycocotools')


def pycocotools_fits():
    import numpy as np
    from pycocotools import mask
    whole = mask.encode(np.ones((2, 2, 1), 'u1', order='F'))
    assert mask.area(whole)[0] == 4


def config_package_resolves():
    from mmengine.config import Config
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'probe.py')
        with open(path, 'w', encoding='utf-8') as file:
            file.write("_base_ = 'hrformer_mm::_base_/runtime.py'\n")
        assert Config.fromfile(path).log_level == 'INFO'


def mim_runs():
    # onedl-mim 0.5 returns the folder of the first file that pip recorded for
    # a package, which is its dist-info.
    from mim.utils import get_installed_path
    path = get_installed_path('mmengine')
    assert os.path.isdir(os.path.join(path, 'runner')), (
        f'this mim looks for the scripts of mmengine in {path}')


def openmmlab_server_answers():
    import socket
    import ssl
    host = 'download.openmmlab.com'
    try:
        plain = socket.create_connection((host, 443), timeout=5)
    except OSError:
        remark('not reachable from here, and not needed')
        return
    ssl.create_default_context().wrap_socket(plain, server_hostname=host)
