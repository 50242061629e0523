# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer on the Hugging Face Hub, in plain PyTorch.

Example::

    from hrformer_mm.models.hub import HRFormer

    model = HRFormer('small', window_size=7)
    model.save_pretrained('folder')  # config.json and model.safetensors
    model.push_to_hub('user/hrformer-small')
    model = HRFormer.from_pretrained('user/hrformer-small')  # or 'folder'
"""
from .. import core

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError as error:
    raise ImportError('hrformer_mm.models.hub needs huggingface_hub: '
                      "pip install 'hrformer-mm[hub]'") from error


class HRFormer(core.HRFormer,  # type: ignore[call-arg, unused-ignore]
               PyTorchModelHubMixin,
               library_name='hrformer-mm',
               license='apache-2.0',
               paper_url='https://arxiv.org/abs/2110.09408',
               tags=['hrformer', 'image-feature-extraction']):
    """:class:`hrformer_mm.core.HRFormer` with the methods of the Hub.

    ``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` write and read
    the arguments of the constructor, and weights as safetensors.
    """
