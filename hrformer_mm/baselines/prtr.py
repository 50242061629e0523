# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""PRTR: key points as a set, found by the queries of a decoder.

Li et al., Pose Recognition with Cascade Transformers, CVPR 2021,
https://arxiv.org/abs/2104.06976: the second stage, which works on the crop of
one person (Table 3 of HRFormer). Letters: B batch, C channels, Q queries, K
key points, L layers of the decoder.
"""
from typing import Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.cls_head import OUT_CHANNELS, RepresentationHead
from ..core.positions import sine_position
from .token_heads import PositionedLayer


class DecoderLayer(nn.TransformerDecoderLayer):
    """A decoder layer that adds places to queries and keys."""

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
    """Encoder and decoder on HRNet's representation for classification.

    Four maps become, for each decoder layer and query, logits of the key
    points and of none of them [L, B, Q, K + 1], and a place [L, B, Q, 2] as
    fractions of width and height.

    Args:
        in_channels: Of the four maps, finest first.
        out_channels: Key points.
        dim: Channels of the transformer.
        hidden: Channels inside its feed-forward layers.
        depth: Layers of the encoder, and of the decoder.
        heads: Attention heads.
        queries: Guesses to make.
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

    def forward(self, xs: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
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
