"""Kernels that do several things at once compute what their plain forms do: with gradients on, the
plain form runs."""

import pytest
import torch

from vidgen.nn import fused
from vidgen.nn.cogvideox_dit import CogVideoXConfig, CogVideoXDiT
from vidgen.nn.rope import axial_angles, cos_sin, grid_rotary, rotate, turn
from vidgen.nn.wan_dit import LayerNorm, WanConfig, WanDiT, folded, gated


def both(call):
    """What it gives without gradients, and in plain form."""
    with torch.no_grad():
        fast = call()
    with torch.enable_grad():
        return fast, call().detach()


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)], ids=["fp32", "bf16"]
)
def test_layers(dtype, bound):
    """Measured: 3e-7 and 2e-3, which is half a unit in bfloat16's last place."""
    torch.manual_seed(0)
    x = drawn(2, 7, 48, dtype=dtype)
    for layer in (fused.Linear(48, 30), fused.FeedForward(48, 96), fused.Linear(48, 9, bias=False)):
        fast, plain = both(lambda layer=layer.to(dtype): layer(x))
        assert fast.dtype == plain.dtype == dtype
        assert (fast - plain).norm() <= bound * plain.norm()


def test_without_onednn(monkeypatch):
    monkeypatch.setattr(fused, "_onednn_dtypes", set)
    torch.manual_seed(0)
    layer, x = fused.FeedForward(48, 96), drawn(2, 7, 48)
    fast, plain = both(lambda: layer(x))
    torch.testing.assert_close(fast, plain)


def test_a_feed_forward_is_its_parts():
    torch.manual_seed(0)
    layer, x = fused.FeedForward(48, 96), drawn(1, 5, 48)
    widen, _, narrow = layer
    hidden = torch.nn.functional.gelu(widen(x), approximate="tanh")
    torch.testing.assert_close(both(lambda: layer(x))[0], narrow(hidden))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 3)], ids=str)
def test_a_modulated_norm_rounds_once(shape, dtype):
    """shift and scale of one level, of one a sample, and of one for each run of tokens."""
    norm, x = LayerNorm(32, elementwise_affine=False), drawn(2, 6, 32, seed=1, dtype=dtype)
    shift, scale, gate = (drawn(*shape, 32, seed=s) for s in (2, 3, 4))

    def spread(y):
        return y.repeat_interleave(6 // shape[1], dim=1)

    wide = x.double()
    wanted = (wide - wide.mean(-1, keepdim=True)) / wide.std(-1, correction=0, keepdim=True)
    wanted = wanted * (1 + spread(scale)) + spread(shift)
    for found in both(lambda: norm(x, shift, scale)):
        torch.testing.assert_close(found, wanted.to(dtype), rtol=8e-3, atol=1e-4)
    y = drawn(2, 6, 32, seed=5, dtype=dtype)
    wanted = (wide + y.double() * spread(gate)).to(dtype)
    torch.testing.assert_close(gated(x, y, gate), wanted, rtol=8e-3, atol=1e-5)


def test_turning_by_complex_numbers():
    """Equal to rounding, whether heads lie beside tokens in memory or not."""
    wave = grid_rotary((2, 3, 4), (4, 6, 6))
    for x in (drawn(2, 24, 3, 16).transpose(1, 2), drawn(2, 3, 24, 16)):
        fast, plain = both(lambda x=x: turn(x, wave))
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-6)
        torch.testing.assert_close(fast.norm(dim=-1), x.norm(dim=-1))
    angles = axial_angles(drawn(1, 24, 1), (16,))
    torch.testing.assert_close(turn(x, cos_sin(angles[0])), rotate(x, angles.expand(2, -1, -1)))


def test_tokens_that_are_alike_are_one():
    """Softmax over the zeros behind two prompts, and over one of them that counts as all."""
    text = drawn(2, 40, 8)
    text[0, 5:], text[1, 9:] = 0, 0
    short, bias = folded(text)
    assert short.shape == (2, 10, 8) and bias.shape == (1, 10)
    q, k = drawn(2, 3, 8, seed=1), drawn(8, 8, seed=2)
    attend = torch.nn.functional.scaled_dot_product_attention
    found = attend(q, short @ k + 1, short - 1, attn_mask=bias)
    torch.testing.assert_close(found, attend(q, text @ k + 1, text - 1))
    off = attend(q, short @ k + 1, short - 1)
    assert (found - off).abs().max() > 1e-2


def test_nothing_to_fold():
    text = drawn(1, 6, 8)
    text[:, 5:] = 0
    assert folded(text)[1] is None
    assert folded(drawn(1, 6, 8))[0].shape == (1, 6, 8)
    short, bias = folded(torch.zeros(1, 6, 8))
    assert short.shape == (1, 1, 8) and bias.exp().item() == pytest.approx(6)


def test_blocks_can_be_compiled_whole():
    """As --compile does it, but for the code that would be generated: one graph a block, whatever
    the length of the text, and the same numbers."""
    torch.manual_seed(0)
    sizes = {"heads": 2, "head_dim": 12, "depth": 1, "mlp_dim": 48, "text_dim": 10}
    wan = WanDiT(WanConfig(**sizes, level_dim=16))
    cogvideox = CogVideoXDiT(
        CogVideoXConfig(heads=2, head_dim=16, text_dim=10, depth=1, time_dim=16, positions="rotary")
    )
    for network, words in ((wan, (20, 9)), (cogvideox, (6,))):
        network.eval().requires_grad_(False)
        z, t = drawn(1, 16, 2, 4, 6), torch.tensor([500.0])
        texts = [torch.nn.functional.pad(drawn(1, n, 10), (0, 0, 0, 20 - n)) for n in words]
        with torch.no_grad():
            plain = [network(z, t, text=text) for text in texts]
            for block in network.blocks:
                block.compile(fullgraph=True, backend="eager")
            for text, wanted in zip(texts, plain, strict=True):
                torch.testing.assert_close(network(z, t, text=text), wanted, rtol=1e-4, atol=1e-5)
