"""The video transformer: shapes, a silent start, and what it must not depend on."""

from dataclasses import replace

import pytest
import torch

from vidgen.nn.dit import DiTConfig, VideoDiT, grown

TINY = DiTConfig(dim=32, depth=2, heads=2, text_dim=12, pooled_dim=10, rope_dims=(4, 6, 6))


def inputs(b=2, words=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {
        "z": torch.randn(b, 8, 3, 4, 6, generator=draw),
        "t": torch.rand(b, generator=draw),
        "text": torch.randn(b, words, 12, generator=draw),
        "pooled": torch.randn(b, 10, generator=draw),
        "text_mask": torch.ones(b, words, dtype=torch.bool),
        "times": torch.arange(3.0).expand(b, -1) / 2,
    }


@pytest.fixture
def network():
    """A network away from its start, where the gates are closed and everything is zero."""
    torch.manual_seed(0)
    network = VideoDiT(TINY)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.eval()


def test_a_new_network_returns_zero_and_learns_from_there():
    network = VideoDiT(TINY)
    out = network(**inputs())
    assert out.shape == (2, 8, 3, 4, 6)
    assert out.abs().max() == 0
    (out - 1).square().mean().backward()
    assert network.final.weight.grad.abs().max() > 0


def test_every_input_matters(network):
    base = network(**inputs())
    for name in ("z", "t", "text", "pooled", "times"):
        changed = inputs()
        changed[name] = changed[name] * 1.5 + 0.1
        assert not torch.allclose(network(**changed), base, atol=1e-3), name


def test_padding_of_text_does_not_matter(network):
    short = inputs(words=5)
    long = dict(short)
    long["text"] = torch.cat((short["text"], 9 * torch.ones(2, 4, 12)), dim=1)
    long["text_mask"] = torch.arange(9).expand(2, -1) < 5
    torch.testing.assert_close(network(**long), network(**short), rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_singles(network):
    both = inputs()
    singles = [network(**{k: v[i : i + 1] for k, v in both.items()}) for i in range(2)]
    torch.testing.assert_close(network(**both), torch.cat(singles), rtol=1e-4, atol=1e-5)


def test_only_time_differences_matter(network):
    """Rotary time: a clip that starts later is the same clip."""
    later = inputs()
    later["times"] = later["times"] + 3.0
    torch.testing.assert_close(network(**later), network(**inputs()), rtol=1e-3, atol=1e-4)


def test_a_port_reaches_every_block(network):
    calls = []
    network(**inputs(), probe=lambda q, k: calls.append(q.shape))
    assert calls == [(2, 2, 3 * 4 * 3, 16)] * 2
    n = 3 * 4 * 3
    alone = torch.eye(n, dtype=torch.bool)
    assert not torch.allclose(network(**inputs(), bias=alone), network(**inputs()), atol=1e-3)


def test_patches_come_back_where_they_were():
    """With every token's output set to its own patch, the network is the identity."""
    network = VideoDiT(TINY)
    seen = {}
    network.patch_in.register_forward_hook(lambda m, args, out: seen.update(tokens=args[0]))
    network.final.register_forward_hook(lambda m, args, out: seen["tokens"])
    batch = inputs()
    assert torch.equal(network(**batch), batch["z"])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rope_dims"):
        DiTConfig(dim=32, heads=2, rope_dims=(4, 6, 8))


def test_shipped_size_builds_on_the_meta_device():
    with torch.device("meta"):
        network = VideoDiT(DiTConfig())
    assert sum(p.numel() for p in network.parameters()) == 3_797_392


def test_a_deepened_network_computes_the_same_and_learns_in_every_block(network):
    deep = grown(network, replace(network.config, depth=5))
    assert deep.config.depth == 5 and len(deep.blocks) == 5
    given = inputs()
    assert torch.equal(deep(**given), network(**given))
    deep(**given).square().mean().backward()
    for block in deep.blocks:
        for last in (block.self_attn.out, block.cross_attn.out, block.mlp[2]):
            assert last.weight.grad.abs().max() > 0
    # 0 0 0 1 1: what is new stands behind what it is a copy of.
    assert [bool(b.mlp[2].weight.any()) for b in deep.blocks] == [
        True, False, False, True, False,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="can't become"):
        grown(network, replace(network.config, depth=1))


def test_a_network_grows_self_conditioned_and_computes_the_same(network):
    own = grown(network, replace(network.config, self_conditioned=True))
    given, z, t = inputs(), *(inputs().pop(k) for k in "zt")
    given = {k: v for k, v in given.items() if k not in ("z", "t")}
    out, tokens = own.carry(z, t, **given)
    assert torch.equal(out, network(z, t, **given))
    assert tokens.shape == (2, 3 * 4 * 3, 32)
    again, _ = own.carry(z, t, latents=tokens, **given)
    assert torch.equal(again, out)  # what is carried counts for nothing yet …
    again.square().mean().backward()
    assert own.previous.weight.grad.abs().max() > 0  # … and learns to
    with pytest.raises(ValueError, match="can't become"):
        grown(own, network.config)


def test_patches_of_another_size_keep_the_blocks(network):
    larger = tuple(2 * n for n in network.config.patch)
    own = grown(network, replace(network.config, patch=larger))
    old = network.state_dict()
    for key, value in own.state_dict().items():
        if key.startswith("final."):
            assert not value.any(), key  # as a new network's
        elif key != "patch_in.weight":
            assert torch.equal(value, old[key]), key
    assert own.patch_in.weight.shape == (32, 8 * network.patch_in.in_features)


def test_without_tokens_of_a_call_before_every_weight_has_a_gradient(network):
    """Processes with a copy each wait for all of them."""
    own = grown(network, replace(network.config, self_conditioned=True))
    own(**inputs()).square().mean().backward()
    assert all(p.grad is not None for p in own.parameters())


def test_what_a_call_ended_with_counts_and_zeros_are_none(network):
    torch.manual_seed(1)
    own = grown(network, replace(network.config, self_conditioned=True))
    torch.nn.init.normal_(own.previous.weight, std=0.2)
    given = inputs()
    z, t = given.pop("z"), given.pop("t")
    out, tokens = own.carry(z, t, **given)
    assert torch.equal(own.carry(z, t, latents=torch.zeros_like(tokens), **given)[0], out)
    half = torch.cat((tokens[:1], torch.zeros_like(tokens[1:])))
    mixed = own.carry(z, t, latents=half, **given)[0]
    assert (mixed[0] - out[0]).abs().max() > 1e-3
    torch.testing.assert_close(mixed[1], out[1])


def test_a_new_skip_is_closed_and_brings_z_to_the_output(network):
    own = grown(network, replace(network.config, skip=True))
    torch.testing.assert_close(own(**inputs()), network(**inputs()))
    with torch.no_grad():
        own.skip.bias.fill_(0.5)
    torch.testing.assert_close(own(**inputs()), network(**inputs()) + inputs()["z"] / 2)
    with torch.no_grad():
        own.skip.weight.normal_()
    told = inputs()
    told["t"] = told["t"] + 0.2  # how much, the level says
    added = own(**told) - grown(network, network.config)(**told)
    assert not torch.allclose(added, own(**inputs()) - network(**inputs()), atol=1e-2)
    patched = grown(own, replace(own.config, patch=(1, 2, 2)))
    assert not patched(**inputs()).any()
