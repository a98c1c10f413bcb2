"""Chunks: what is cut, and that a clip put together again is the clip, for every video decoder."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.stages.chunks import Chunks, in_chunks

TINY = MoVQConfig(widths=(8,), blocks=1, attention=(), groups=4)
CONVOLUTIONS = ["none", "conv1d", "conv3d", "resnet", "inflate"]


def filled(temporal: str, attention: bool = False) -> MoVQDecoder:
    torch.manual_seed(0)
    config = replace(TINY, temporal=temporal, temporal_attention=attention)
    decoder = MoVQDecoder(config).eval().requires_grad_(False)
    for p in decoder.parameters():
        p.add_(0.2 * torch.randn_like(p) if p.numel() > 1 else torch.full_like(p, 0.5))
    return decoder


class Spy:
    """Calls the decoder and keeps how many frames it was given."""

    def __init__(self, decoder: MoVQDecoder) -> None:
        self.decoder = decoder
        self.frames: list[int] = []

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        self.frames.append(z.shape[1])
        return self.decoder(z[None])[0]


def together(spy: Spy, latents: torch.Tensor, chunks: Chunks) -> torch.Tensor:
    return torch.cat(list(in_chunks(latents, spy, chunks)), dim=1)


@pytest.mark.parametrize("temporal", CONVOLUTIONS)
@pytest.mark.parametrize("more", [1, 4, 40])
def test_chunks_of_convolutions_are_exact(temporal, more):
    spy = Spy(filled(temporal))
    reach = spy.decoder.config.reach
    assert reach == (0 if temporal == "none" else 6)
    chunks = Chunks(2 * reach + more, reach)
    latents = torch.randn(4, 33, 2, 3)
    assert chunks.exact(33)
    torch.testing.assert_close(
        together(spy, latents, chunks), spy.decoder(latents[None])[0], rtol=1e-4, atol=1e-5
    )
    assert max(spy.frames) <= chunks.size


@pytest.mark.parametrize("temporal", ["conv1d", "resnet", "inflate"])
def test_less_than_the_reach_would_not_be_exact(temporal):
    """The bound is no wider than it must be for a frame's own convolutions: with half of it the
    border shows."""
    spy = Spy(filled(temporal))
    reach = spy.decoder.config.reach
    latents = torch.randn(4, 33, 2, 3)
    made = together(spy, latents, Chunks(reach + 4, reach // 2))
    assert (made - spy.decoder(latents[None])[0]).abs().max() > 1e-3


@pytest.mark.parametrize("temporal", CONVOLUTIONS)
def test_chunks_of_attention_are_blended(temporal):
    spy = Spy(filled(temporal, attention=True))
    assert spy.decoder.config.reach is None
    latents = torch.randn(4, 33, 2, 3)
    chunks = Chunks(16, None)
    assert not chunks.exact(33) and chunks.exact(16)
    assert chunks.in_words() == "blended chunks of 16 frames"
    made = together(spy, latents, chunks)
    assert made.shape == (3, 33, 2, 3) and max(spy.frames) == 16
    parts = [spy.decoder(latents[None, :, a:b])[0] for a, b in ((0, 16), (8, 24))]
    torch.testing.assert_close(made[:, :8], parts[0][:, :8])
    for i in range(8):  # from the one to the other in even steps
        share = (i + 1) / 9
        expected = (1 - share) * parts[0][:, 8 + i] + share * parts[1][:, i]
        torch.testing.assert_close(made[:, 8 + i], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        together(spy, latents[:, :16], chunks), spy.decoder(latents[None, :, :16])[0]
    )


@pytest.mark.parametrize("reach", [0, 6, None])
def test_what_is_decoded_at_once_does_not_grow_with_the_clip(reach):
    chunks = Chunks(16, reach)
    most = {max(end - first for first, end in chunks.spans(n)) for n in (17, 33, 330)}
    assert most == {16}


@given(st.integers(1, 200), st.integers(1, 40), st.one_of(st.none(), st.integers(0, 12)))
def test_every_frame_comes_out_once(total, size, reach):
    """Of a call that changes nothing, whatever the sizes: blending equal things changes nothing."""
    chunks = Chunks(size, reach)
    x = torch.arange(total, dtype=torch.float64)[None, :, None, None]
    made = torch.cat(list(in_chunks(x, lambda part: part.clone(), chunks)), dim=1)
    torch.testing.assert_close(made, x, rtol=0, atol=1e-9)
    spans = chunks.spans(total)
    assert spans[0][0] == 0 and spans[-1][1] == total
    assert all(b[0] == a[1] - chunks.overlap for a, b in pairwise(spans))


def test_too_little_memory_gives_up_exactness_last():
    sizes, chunks = [], Chunks(28, 6)
    while chunks.size > 1:
        chunks = chunks.smaller()
        sizes.append((chunks.size, chunks.exact(100)))
    assert sizes == [(14, True), (13, True), (6, False), (3, False), (1, False)]
    assert Chunks(16, 0).smaller() == Chunks(8, 0) and Chunks(8, 0).exact(100)
    assert Chunks(16, None).smaller() == Chunks(8, None)
