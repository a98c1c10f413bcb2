"""The FIT that networks are trained with computes what the same graph in plain operations does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.snap_video.fused import told
from benchmarks.snap_video.plain import plain
from vidgen.nn.attention import attend_wide
from vidgen.nn.fit import FIT, FITConfig

CONFIG = FITConfig(
    num_frames=3, height=8, width=12, patch=(1, 2, 2), group=(3, 2, 3), dim=32, latents=16,
    latent_dim=48, context_dim=24, text_dim=20, blocks=2, global_layers=2, head_dim=8,
    latent_head_dim=16, dropout=0.0,
)  # fmt: skip


@pytest.mark.parametrize("local_layers", [0, 2])
@pytest.mark.parametrize("carried", [False, True])
def test_output_and_gradients_are_those_of_the_plain_graph(local_layers, carried) -> None:
    torch.manual_seed(0)
    network = FIT(replace(CONFIG, local_layers=local_layers)).double()
    with torch.no_grad():
        network.previous_norm.weight.add_(0.5)  # which starts at 0, and latents wouldn't matter
    given = {k: x.double() if x.is_floating_point() else x for k, x in told(network, 2).items()}
    if not carried:
        given["latents"] = None
    weights = list(network.parameters())
    found = []
    for call in (lambda **kwargs: network(**kwargs), lambda **kwargs: plain(network, **kwargs)):
        out, latents = call(**given)
        loss = out.sin().sum() + latents.cos().sum()
        found.append((out, latents, *torch.autograd.grad(loss, weights)))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-8)


def test_bfloat16_attention_on_a_cpu_is_float32s() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=draw).bfloat16() for n in (5, 7, 7))
    mask = torch.arange(7) < 6
    exact = attend_wide(q.float(), k.float(), v.float(), bias=mask[None, None, None])
    made = attend_wide(q, k, v, bias=mask[None, None, None])
    assert made.dtype == torch.bfloat16 and torch.equal(made, exact.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend_wide(q, k, v, bias=mask[None, None, None]), made)
