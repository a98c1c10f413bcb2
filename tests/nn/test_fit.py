"""FIT: published sizes, an independent slow version, and what it must not depend on."""

import pytest
import torch
import torch.nn.functional as F

from vidgen.nn.attention import attend_reference
from vidgen.nn.fit import FIT, FITConfig

TINY = FITConfig(
    num_frames=4, height=8, width=12, patch=(1, 2, 2), group=(4, 2, 3), dim=16, latents=12,
    latent_dim=24, context_dim=20, text_dim=10, blocks=2, global_layers=2, local_layers=1,
    head_dim=4, latent_head_dim=8, dropout=0.0,
)  # fmt: skip
PUBLISHED = {  # Snap Video, table 8
    "500m": {},
    "3.9b": {"dim": 1024, "latents": 768, "latent_dim": 3072, "context_dim": 1024, "head_dim": 64,
             "latent_head_dim": 128},
}  # fmt: skip


def inputs(b=2, seed=0, rows=8, columns=12):
    draw = torch.Generator().manual_seed(seed)
    return {
        "z": torch.randn(b, 3, 4, rows, columns, generator=draw),
        "t": torch.randn(b, generator=draw),
        "text": torch.randn(b, 5, 10, generator=draw),
        "text_mask": torch.arange(5).expand(b, -1) < 4,
        "period": torch.rand(b, generator=draw),
        "size": torch.rand(b, 2, generator=draw),
    }


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = FIT(TINY)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.eval()


@pytest.mark.parametrize(("name", "millions"), [("500m", 494.8), ("3.9b", 3910.6)])
def test_published_sizes(name, millions):
    """The counts follow from table 8 but for the widths of the three scalar tokens' networks,
    which nobody published: within 0.05 %."""
    with torch.device("meta"):
        network = FIT(FITConfig(**PUBLISHED[name]))
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=5e-4)
    c = network.config
    assert c.grid == (16, 10, 16)  # 2,560 patch tokens
    assert c.num_groups == 8
    assert c.latents // c.num_groups == {"500m": 64, "3.9b": 96}[name]


def test_the_published_upsampler_has_147456_tokens_in_32_groups():
    sizes = PUBLISHED["3.9b"] | {"height": 288, "width": 512, "group": (16, 18, 16)}
    c = FITConfig(**sizes, in_channels=6, levels=2)
    t, h, w = c.grid
    assert t * h * w == 147_456
    assert (c.num_groups, c.latents // c.num_groups) == (32, 24)
    assert t * h * w // c.num_groups == 4608


def slow(network, z, t, text, text_mask, period, size, latents=None):
    """The same graph from its description: one group, one head, one patch at a time."""
    c, p = network.config, dict(network.named_parameters())
    b = len(z)

    def norm(x, name):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * p[name + ".weight"]

    def linear(x, name):
        y = x @ p[name + ".weight"].T
        return y + p[name + ".bias"] if name + ".bias" in p else y

    def mlp(x, name):
        return linear(F.gelu(linear(norm(x, f"{name}.norm"), f"{name}.up")), f"{name}.down")

    def attention(x, name, d, context=None, mask=None):
        y = norm(x, f"{name}.norm")
        other = y if context is None else norm(context, f"{name}.context_norm")
        q, kv = linear(y, f"{name}.q"), linear(other, f"{name}.kv")
        k, v = kv.chunk(2, dim=-1)
        heads = []
        for i in range(0, q.shape[-1], d):
            bias = None if mask is None else mask[:, None, None]
            one = (x[:, None, :, i : i + d] for x in (q, k, v))
            heads.append(attend_reference(*one, bias=bias)[:, 0])
        return x + linear(torch.cat(heads, -1), f"{name}.out")

    (_, ph, pw), (_, gh, gw) = c.patch, c.group
    groups, places = [], []
    for top in range(0, c.height, gh * ph):
        for left in range(0, c.width, gw * pw):
            cells = [
                (f, top + i * ph, left + j * pw)
                for f in range(c.num_frames) for i in range(gh) for j in range(gw)
            ]  # fmt: skip
            cut = [z[:, :, f, y : y + ph, x : x + pw].flatten(1) for f, y, x in cells]
            groups.append(norm(linear(torch.stack(cut, 1), "patch_in"), "patch_norm"))
            places.append(cells)
    n = groups[0].shape[1]
    groups = [g + p["positions"][i * n : (i + 1) * n] for i, g in enumerate(groups)]
    tokens = p["latents"].expand(b, -1, -1)
    latents = torch.zeros_like(tokens) if latents is None else latents
    tokens = tokens + norm(mlp(latents, "previous"), "previous_norm")

    def scalar(x, name):
        angles = 2 * torch.pi * x[:, None] * p[f"{name}.frequencies"]
        y = torch.cat([angles.sin(), angles.cos(), x[:, None]], -1)
        return linear(F.gelu(linear(y, f"{name}.layers.0")), f"{name}.layers.2")[:, None]

    sized = linear(F.gelu(linear(size, "size_token.0")), "size_token.2")[:, None]
    context = [scalar(t, "level_tokens.0"), scalar(period, "rate_token"), sized]
    context = torch.cat([*context, linear(text, "text_in")], 1)
    mask = torch.cat([torch.ones(b, 3, dtype=torch.bool), text_mask], 1)
    share = c.latents // c.num_groups
    for k in range(c.blocks):
        at = f"blocks.{k}"
        for i in range(c.local_layers):
            name = f"{at}.local_layers.{i}"
            groups = [attention(g, f"{name}.attention", c.head_dim) for g in groups]
            groups = [g + mlp(g, f"{name}.feed") for g in groups]
        tokens = attention(tokens, f"{at}.read_context", c.head_dim, context, mask)
        tokens = tokens + mlp(tokens, f"{at}.feed_context")
        parts = tokens.split(share, dim=1)
        parts = [
            attention(x, f"{at}.read", c.head_dim, g) for x, g in zip(parts, groups, strict=True)
        ]
        tokens = torch.cat([x + mlp(x, f"{at}.feed_read") for x in parts], 1)
        for i in range(c.global_layers):
            name = f"{at}.global_layers.{i}"
            tokens = attention(tokens, f"{name}.attention", c.latent_head_dim)
            tokens = tokens + mlp(tokens, f"{name}.feed")
        parts = tokens.split(share, dim=1)
        groups = [
            attention(g, f"{at}.write", c.head_dim, x) for g, x in zip(groups, parts, strict=True)
        ]
        groups = [g + mlp(g, f"{at}.feed_write") for g in groups]
    out = torch.zeros(b, c.out_channels, c.num_frames, c.height, c.width)
    for g, cells in zip(groups, places, strict=True):
        values = linear(norm(g, "final_norm"), "final")
        for i, (f, y, x) in enumerate(cells):
            out[:, :, f, y : y + ph, x : x + pw] = values[:, i].view(b, c.out_channels, ph, pw)
    return out, tokens


@pytest.mark.parametrize("carried", [False, True])
@torch.no_grad()
def test_it_computes_what_its_description_says(network, carried):
    given = inputs()
    latents = torch.randn(2, 12, 24) if carried else None
    out, tokens = network(**given, latents=latents)
    expected, expected_tokens = slow(network, **given, latents=latents)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens, expected_tokens, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_self_conditioning_starts_as_nothing():
    torch.manual_seed(0)
    network = FIT(TINY).eval()
    out, tokens = network(**inputs())
    again, _ = network(**inputs(), latents=tokens)
    assert torch.equal(out, again)


@torch.no_grad()
def test_smaller_pictures_are_padded_below_and_cropped_back(network):
    given = inputs(rows=6)
    out, _ = network(**given)
    assert out.shape == (2, 3, 4, 6, 12)
    padded = given | {"z": F.pad(given["z"], (0, 0, 0, 2))}
    torch.testing.assert_close(out, network(**padded)[0][..., :6, :])


@torch.no_grad()
def test_padding_of_text_changes_nothing(network):
    given = inputs()
    out, _ = network(**given)
    longer = given | {
        "text": torch.cat([given["text"], torch.randn(2, 3, 10)], 1),
        "text_mask": F.pad(given["text_mask"], (0, 3)),
    }
    torch.testing.assert_close(out, network(**longer)[0])


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch(network):
    given = inputs(b=3)
    out, tokens = network(**given)
    one, its_tokens = network(**{k: v[1:2] for k, v in given.items()})
    torch.testing.assert_close(out[1:2], one, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tokens[1:2], its_tokens, rtol=1e-5, atol=1e-6)


def test_everything_given_matters_and_learns(network):
    given = inputs() | {"latents": torch.randn(2, 12, 24)}
    out, tokens = network(**given)
    for name in ("t", "text", "period", "size"):
        changed = network(**(given | {name: given[name] + 0.5}))[0]
        assert (changed - out).abs().max() > 1e-4, name
    (out.square().mean() + tokens.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"group": (4, 3, 3)}, "groups of 3 don't divide 4 rows"),
        ({"patch": (1, 3, 2)}, "patches of"),
        ({"latents": 10}, "4 groups don't divide 10 latents"),
        ({"head_dim": 5}, "heads of 5 don't divide"),
    ],
)
def test_sizes_that_do_not_fit(sizes, words):
    with pytest.raises(ValueError, match=words):
        FIT(FITConfig(**(TINY.to_dict() | sizes)))


def test_pictures_that_do_not_fit(network):
    with pytest.raises(ValueError, match="4 frames of 10 × 12"):
        network(**inputs(rows=10))
    with pytest.raises(ValueError, match="noise_level"):
        network(**inputs(), noise_level=torch.ones(2))


def test_layers_start_smaller_than_torchs():
    torch.manual_seed(0)
    network = FIT(TINY)
    weight = network.blocks[0].feed_read.up.weight
    bound = (1 / 24) ** 0.5 / 3**0.5
    assert float(weight.detach().abs().max()) == pytest.approx(bound, rel=1e-2)
    assert network.blocks[0].read.norm.bias is None
