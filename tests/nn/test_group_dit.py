"""The transformer over groups: a silent start, what counts, and a slow version of the same."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vidgen.nn.attention import attend_reference
from vidgen.nn.group_dit import GroupDiT, GroupDiTConfig

TINY = GroupDiTConfig(
    in_channels=10, out_channels=6, patch=(1, 2), dim=32, depth=2, heads=2, rope_dims=(4, 6, 6),
    skip_rows=5,
)  # fmt: skip


def inputs(b: int = 2, groups: int = 3, height: int = 2, width: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "z": torch.randn(b, 10, groups, height, width, generator=draw),
        "t": 999 * torch.rand(b, generator=draw),
        "times": torch.arange(float(groups)).expand(b, -1) / 2,
        "skip": torch.tensor([1, 3])[:b],
        "noise_level": 250 * torch.rand(b, generator=draw),
    }


@pytest.fixture
def network() -> GroupDiT:
    """Away from its start, where its output is zero."""
    torch.manual_seed(0)
    network = GroupDiT(TINY)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.eval()


def test_a_new_network_returns_zero_and_learns_from_there() -> None:
    network = GroupDiT(TINY)
    out = network(**inputs())
    assert out.shape == (2, 6, 3, 2, 4) and not out.any()
    (out - 1).square().mean().backward()
    assert network.final.weight.grad is not None and network.final.weight.grad.any()


def test_everything_told_matters(network) -> None:
    base = network(**inputs())
    for name in ("z", "t", "times", "noise_level"):
        changed = inputs()
        changed[name] = changed[name] * 1.5 + 0.1
        assert not torch.allclose(network(**changed), base, atol=1e-3), name
    assert not torch.allclose(network(**inputs() | {"skip": torch.tensor([2, 2])}), base, atol=1e-3)


def test_groups_see_each_other_and_samples_do_not(network) -> None:
    base, changed = network(**inputs()), inputs()
    changed["z"] = changed["z"].clone()
    changed["z"][0, :, 2] += 1
    out = network(**changed)
    assert not torch.allclose(out[0, :, 0], base[0, :, 0], atol=1e-3)
    torch.testing.assert_close(out[1], base[1])


def test_only_distances_in_time_count(network) -> None:
    later = inputs()
    later["times"] = later["times"] + 7
    torch.testing.assert_close(network(**later), network(**inputs()), rtol=1e-3, atol=1e-4)


def test_latents_that_patches_do_not_divide_are_padded_by_their_last_column(network) -> None:
    told = inputs(width=5)
    padded = dict(told)
    padded["z"] = torch.cat([told["z"], told["z"][..., -1:]], dim=-1)
    torch.testing.assert_close(network(**told), network(**padded)[..., :5])


def test_a_network_that_is_told_no_noise_and_no_skip() -> None:
    torch.manual_seed(0)
    network = GroupDiT(
        GroupDiTConfig(**TINY.to_dict() | {"skip_rows": 0, "noise_embedding": False})
    )
    told = {k: x for k, x in inputs().items() if k in ("z", "t", "times")}
    assert network(**told).shape == (2, 6, 3, 2, 4)
    assert "skip_embed.weight" not in network.state_dict()


@pytest.mark.parametrize(
    ("sizes", "said"), [({"dim": 33}, "rope_dims"), ({"rope_dims": (5, 5, 6)}, "must be even")]
)
def test_sizes_that_do_not_fit(sizes, said) -> None:
    with pytest.raises(ValueError, match=said):
        GroupDiTConfig(**TINY.to_dict() | sizes)


# --- the same, token by token ---------------------------------------------------------------------


def slowly(
    network: GroupDiT, z: Tensor, t: Tensor, times: Tensor, skip: Tensor, noise_level: Tensor
):
    """One sample in float64, by loops, from the description alone."""
    own = {name: p.double() for name, p in network.state_dict().items()}
    c, (groups, height, width) = network.config, z.shape[1:]
    ph, pw = c.patch

    def linear(x: Tensor, name: str) -> Tensor:
        bias = own.get(f"{name}.bias")
        return x @ own[f"{name}.weight"].T + (0 if bias is None else bias)

    def embedded(x: Tensor, name: str) -> Tensor:
        angles = [float(x) * 10_000 ** (-i / 64) for i in range(64)]
        waves = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles]).double()
        hidden = linear(waves, f"{name}.layers.0")
        return linear(hidden * hidden.sigmoid(), f"{name}.layers.2")

    def normal(x: Tensor) -> Tensor:
        return (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt()

    level = embedded(t, "level_embed") + embedded(noise_level, "noise_embed")
    level = level + own["skip_embed.weight"][int(skip)]
    lit = level * level.sigmoid()
    places, tokens = [], []
    for g in range(groups):
        for i in range(height // ph):
            for j in range(width // pw):
                patch = z[:, g, i * ph : (i + 1) * ph, j * pw : (j + 1) * pw]
                tokens.append(linear(patch.double().flatten(), "patch_in"))
                row, column = i - (height // ph - 1) / 2, j - (width // pw - 1) / 2
                places.append((float(times[g]) * c.time_scale, row, column))
    shared = linear(lit, "modulation.project").view(6, -1)
    for n in range(c.depth):
        name, offsets = f"blocks.{n}", own[f"blocks.{n}.adaln.offsets"]
        shift1, scale1, gate1, shift2, scale2, gate2 = shared + offsets
        seen = [normal(x) * (1 + scale1) + shift1 for x in tokens]
        added = attended(seen, places, own, name, c)
        tokens = [x + gate1 * linear(y, f"{name}.self_attn.out") for x, y in
                  zip(tokens, added, strict=True)]  # fmt: skip
        for k, x in enumerate(tokens):
            hidden = linear(normal(x) * (1 + scale2) + shift2, f"{name}.mlp.0")
            hidden = torch.nn.functional.gelu(hidden, approximate="tanh")
            tokens[k] = x + gate2 * linear(hidden, f"{name}.mlp.2")
    shift, scale = linear(lit, "final_modulation.project").view(2, -1)
    out = torch.zeros(c.out_channels, groups, height, width, dtype=torch.float64)
    for k, x in enumerate(tokens):
        g, rest = divmod(k, (height // ph) * (width // pw))
        i, j = divmod(rest, width // pw)
        patch = linear(normal(x) * (1 + scale) + shift, "final").view(c.out_channels, ph, pw)
        out[:, g, i * ph : (i + 1) * ph, j * pw : (j + 1) * pw] = patch
    return out


def attended(seen, places, own, name: str, c: GroupDiTConfig) -> list[Tensor]:
    """Every token's look at all of them, heads side by side."""
    size = c.dim // c.heads
    qkv = torch.stack([own[f"{name}.self_attn.qkv.weight"] @ x for x in seen])
    q, k, v = qkv.view(len(seen), 3, c.heads, size).permute(1, 2, 0, 3)

    def turned(x: Tensor, gain: Tensor) -> Tensor:
        x = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * gain
        x = x.clone()
        for n, place in enumerate(places):
            pair = 0
            for axis, dim in enumerate(c.rope_dims):
                for i in range(0, dim, 2):
                    angle = place[axis] * 100.0 ** (-i / dim)
                    a, b = x[:, n, pair].clone(), x[:, n, pair + 1].clone()
                    x[:, n, pair] = a * math.cos(angle) - b * math.sin(angle)
                    x[:, n, pair + 1] = a * math.sin(angle) + b * math.cos(angle)
                    pair += 2
        return x

    q = turned(q, own[f"{name}.self_attn.q_norm.weight"])
    k = turned(k, own[f"{name}.self_attn.k_norm.weight"])
    looked = attend_reference(q[None], k[None], v[None])[0]  # heads n size
    return list(looked.permute(1, 0, 2).reshape(len(seen), -1))


def test_it_computes_what_its_description_says(network) -> None:
    told = inputs()
    out = network(**told)
    for row in range(2):
        own = slowly(network, *(told[k][row] for k in ("z", "t", "times", "skip", "noise_level")))
        torch.testing.assert_close(out[row].double(), own, rtol=1e-3, atol=1e-4)
