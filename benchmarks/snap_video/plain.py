"""A FIT once more, in plain tensor operations: what `vidgen.nn.fit` is held to, and timed against.

Every norm, softmax and feed-forward is written as its equation reads, with an operation for each
sign; queries, keys and values are three products. It takes its weights from a `FIT`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from vidgen.nn.attention import attend_reference
from vidgen.nn.fit import FIT, Attention, Block, FeedForward

EPS = 1e-5  # of layer norms, as torch's


def plain(
    network: FIT, z: Tensor, t: Tensor, *, latents: Tensor | None = None, **told: Any
) -> tuple[Tensor, Tensor]:
    """What `network(z, t, latents=latents, **told)` gives, without dropout; z fills the grid."""
    c, b = network.config, len(z)
    patches = norm(linear(network._grouped(z), network.patch_in), network.patch_norm.weight)
    places = repeat(network.positions, "(g n) d -> (b g) n d", b=b, g=c.num_groups)
    patches = patches + places
    tokens: Tensor = repeat(network.latents, "l d -> b l d", b=b)
    before = torch.zeros_like(tokens) if latents is None else latents
    tokens = tokens + norm(update(before, network.previous), network.previous_norm.weight)
    scalars = {k: told.get(k) for k in ("period", "size", "noise_level")}
    context, mask = network._context(t, told["text"], told.get("text_mask"), **scalars)
    for block in network.blocks:
        assert isinstance(block, Block)
        patches, tokens = one_block(block, patches, tokens, context, mask, c.num_groups)
    out = linear(norm(patches, network.final_norm.weight), network.final)
    return network._video(out), tokens


def one_block(
    block: Any, patches: Tensor, tokens: Tensor, context: Tensor, mask: Tensor | None, groups: int
) -> tuple[Tensor, Tensor]:
    """Read the context, read the patches, compute, write."""
    for layer in block.local_layers:
        patches = feed(attention(patches, layer.attention), layer.feed)
    tokens = feed(attention(tokens, block.read_context, context, mask), block.feed_context)
    grouped = rearrange(tokens, "b (g l) d -> (b g) l d", g=groups)
    grouped = feed(attention(grouped, block.read, patches), block.feed_read)
    tokens = rearrange(grouped, "(b g) l d -> b (g l) d", g=groups)
    for layer in block.global_layers:
        tokens = feed(attention(tokens, layer.attention), layer.feed)
    grouped = rearrange(tokens, "b (g l) d -> (b g) l d", g=groups)
    return feed(attention(patches, block.write, grouped), block.feed_write), tokens


def attention(
    x: Tensor, part: Attention, context: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """x + out(softmax(q kᵀ / √d) v)."""
    y = norm(x, part.norm.weight)
    source = y
    if context is not None and part.context_norm is not None:
        source = norm(context, part.context_norm.weight)
    key, value = part.kv.weight.chunk(2)
    products = (y @ part.q.weight.T, source @ key.T, source @ value.T)
    q, k, v = (rearrange(p, "b n (h d) -> b h n d", h=part.heads) for p in products)
    bias = None if mask is None else rearrange(mask.bool(), "b l -> b 1 1 l")
    y = rearrange(attend_reference(q, k, v, bias=bias), "b h n d -> b n (h d)")
    return x + y @ part.out.weight.T


def feed(x: Tensor, part: FeedForward) -> Tensor:
    """x + W2 gelu(W1 norm(x))."""
    return x + update(x, part)


def update(x: Tensor, part: FeedForward) -> Tensor:
    """W2 gelu(W1 norm(x))."""
    return linear(gelu(linear(norm(x, part.norm.weight), part.up)), part.down)


def gelu(y: Tensor) -> Tensor:
    """y (1 + erf(y / √2)) / 2."""
    return y * (1 + torch.erf(y / math.sqrt(2))) / 2


def norm(x: Tensor, gain: Tensor) -> Tensor:
    """(x − mean) / √(variance + eps), times a gain."""
    centered = x - x.mean(dim=-1, keepdim=True)
    variance = (centered * centered).mean(dim=-1, keepdim=True)
    return gain * centered / (variance + EPS).sqrt()


def linear(x: Tensor, part: Any) -> Tensor:
    return x @ part.weight.T + part.bias
