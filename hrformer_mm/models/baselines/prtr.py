# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""PRTR: keypoints as a set, predicted from the queries of a decoder.

Li et al., Pose Recognition with Cascade Transformers, CVPR 2021,
https://arxiv.org/abs/2104.06976. This is the second stage, on the crop of one
person (Table 3 of HRFormer). Letters: B batch, C channels, Q queries, K
keypoints, L layers of the decoder.
"""
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from mmpose.models.heads.base_head import BaseHead
from mmpose.models.utils.tta import flip_coordinates
from mmpose.registry import KEYPOINT_CODECS
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ...core.cls_head import OUT_CHANNELS, RepresentationHead
from ...core.positions import sine_position
from ...registry import MODELS
from .common import PositionedLayer


class DecoderLayer(nn.TransformerDecoderLayer):
    """Decoder layer that adds positions to queries and keys."""

    def forward(  # type: ignore[override]
            self, x: Tensor, memory: Tensor, query: Tensor,
            position: Tensor) -> Tensor:
        q = x + query
        attended = self.self_attn(q, q, x, need_weights=False)[0]
        x = self.norm1(x + attended)
        attended = self.multihead_attn(
            x + query, memory + position, memory, need_weights=False)[0]
        x = self.norm2(x + attended)
        hidden = self.activation(self.linear1(x))
        return self.norm3(x + self.linear2(hidden))


class PRTR(nn.Module):
    """Encoder and decoder on HRNet's representation head.

    Maps four maps to the outputs of each decoder layer and query: logits of
    the keypoints and of no keypoint [L, B, Q, K + 1], and a position
    [L, B, Q, 2] as fractions of width and height.

    Args:
        in_channels: Numbers of channels of the four maps, finest first.
        out_channels: Number of keypoints.
        dim: Number of channels of the transformer.
        hidden: Number of channels inside its feed-forward layers.
        depth: Number of layers of the encoder, and of the decoder.
        heads: Number of attention heads.
        queries: Number of queries.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: int = 17,
                 dim: int = 256,
                 hidden: int = 2048,
                 depth: int = 6,
                 heads: int = 8,
                 queries: int = 100):
        super().__init__()
        self.represent = RepresentationHead(in_channels, dw_conv=False)
        self.reduce = nn.Conv2d(OUT_CHANNELS, dim, 1)
        self.encoders, self.decoders = (
            nn.ModuleList(
                layer(dim, heads, hidden, 0., batch_first=True)
                for _ in range(depth))
            for layer in (PositionedLayer, DecoderLayer))
        for layers in (self.encoders, self.decoders):
            for p in layers.parameters():
                if p.dim() > 1:
                    nn.init.xavier_uniform_(p)
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.randn(1, queries, dim))
        self.classify = nn.Linear(dim, out_channels + 1)
        self.locate = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(),
            nn.Linear(dim, 2))

    def forward(self, xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        x = self.reduce(self.represent(xs))
        at = sine_position(x.shape[-2:], x.shape[1], x.device).to(x.dtype)
        x = x.flatten(2).transpose(1, 2)  # [B, H*W, dim]
        for layer in self.encoders:
            x = layer(x, at)
        query = self.queries.expand(len(x), -1, -1)
        y, outs = torch.zeros_like(query), []
        for layer in self.decoders:
            y = layer(y, x, query, at)
            outs.append(self.norm(y))
        y = torch.stack(outs)  # [L, B, Q, dim]
        return self.classify(y), self.locate(y).sigmoid()


def assign(cost: Tensor) -> Tensor:
    """Assign a different query to each keypoint at minimal total cost.

    Args:
        cost: Costs [B, K, Q], with at least as many queries as keypoints.

    Returns:
        Indices of queries [B, K].
    """
    found = [linear_sum_assignment(c)[1] for c in cost.detach().cpu().numpy()]
    return torch.as_tensor(np.stack(found), device=cost.device)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Gather rows of [B, Q, C] by indices [B, K], to [B, K, C]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def match(logits: Tensor, points: Tensor, labels: Tensor,
          loss_weight: float) -> Tensor:
    """Match queries to the keypoints of ``labels``.

    Args:
        logits: Logits of keypoints, [B, Q, K + 1].
        points: Predicted positions, [B, Q, 2].
        labels: Positions of the keypoints, [B, K, 2].
        loss_weight: Weight of a distance relative to a probability.

    Returns:
        Indices of queries [B, K].
    """
    likely = logits.softmax(-1)[..., :-1].transpose(1, 2)  # [B, K, Q]
    return assign(loss_weight * torch.cdist(labels, points, p=1) - likely)


@MODELS.register_module()
class PRTRHead(PRTR, BaseHead):
    """:class:`PRTR` as a head of MMPose, with its set matching loss.

    Args:
        decoder: Config of the codec, which has the size of the input.
        loss_weight: Weight of the distances; that of the classes is 1.
        none_weight: Class weight of queries without a keypoint.
        init_cfg: As in mmengine.
        **kwargs: See :class:`PRTR`.
    """

    def __init__(self,
                 decoder: Mapping,
                 loss_weight: float = 5.,
                 none_weight: float = 0.1,
                 init_cfg: dict | None = None,
                 **kwargs):
        super().__init__(**kwargs)
        self.init_cfg = deepcopy(init_cfg)
        self.decoder = KEYPOINT_CODECS.build(decoder)
        self.loss_weight, self.none_weight = loss_weight, none_weight

    def layer_losses(self, logits: Tensor, points: Tensor, labels: Tensor,
                     weights: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the class and distance losses of one decoder layer."""
        index = match(logits, points, labels, self.loss_weight)
        K = labels.shape[1]
        classes = logits.new_full(logits.shape[:2], K, dtype=torch.long)
        classes.scatter_(1, index, torch.arange(K, device=index.device).expand(
            len(index), -1))
        weight = logits.new_ones(K + 1)
        weight[K] = self.none_weight
        found = F.cross_entropy(logits.transpose(1, 2), classes, weight)
        distance = (pick(points, index) - labels).abs() * weights[..., None]
        return found, self.loss_weight * distance.mean() * K

    def loss(self, feats: Sequence[Tensor], batch_data_samples: list,
             train_cfg: Mapping = {}) -> dict[str, Tensor]:
        """Compute losses of the last layer, and the sum of all others."""
        logits, points = (x.float() for x in self.forward(feats))
        labels, weights = (
            torch.cat([getattr(d.gt_instance_labels, name)
                       for d in batch_data_samples])
            for name in ('keypoint_labels', 'keypoint_weights'))
        losses = [self.layer_losses(found, p, labels, weights)
                  for found, p in zip(logits, points)]
        aux: Any = sum(sum(pair) for pair in losses[:-1])
        return dict(loss_class=losses[-1][0], loss_kpt=losses[-1][1],
                    loss_aux=aux)

    def find(self, feats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict positions [B, K, 2] and scores [B, K] by the last layer."""
        logits, points = (x[-1].float() for x in self.forward(feats))
        # Without the class of no keypoint, as in the authors' code.
        likely = logits[..., :-1].softmax(-1)
        index = assign(-likely.transpose(1, 2))
        scores = pick(likely, index).diagonal(dim1=1, dim2=2)
        return pick(points, index), scores

    def predict(self,
                feats: Any,
                batch_data_samples: list,
                test_cfg: Mapping = {}) -> list[InstanceData]:
        """Predict keypoints in pixels of the input, with a flip test."""
        if test_cfg.get('flip_test', False):
            (places, scores), (mirrored, again) = map(self.find, feats)
            order = batch_data_samples[0].metainfo['flip_indices']
            mirrored = flip_coordinates(
                mirrored, order, shift_coords=False,
                input_size=self.decoder.input_size)
            places = (places + mirrored) / 2
            scores = (scores + again[:, order]) / 2
        else:
            places, scores = self.find(feats)
        points = places.cpu().numpy() * self.decoder.input_size
        return [InstanceData(keypoints=p[None], keypoint_scores=s[None])
                for p, s in zip(points, scores.cpu().numpy())]
