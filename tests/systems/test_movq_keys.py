"""Published checkpoints of MoVQ: tiny random ones of their layouts load, and decode alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vidgen.errors import InputError
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.systems.movq_keys import from_authors, from_diffusers

# The norms of diffusers have 32 groups, whatever the config says.
CONFIG = MoVQConfig(widths=(32, 64), blocks=2, attention=(1,))


@pytest.fixture(scope="module")
def theirs():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.VQModel(
        in_channels=3, out_channels=3, latent_channels=4, vq_embed_dim=4, num_vq_embeddings=8,
        block_out_channels=(32, 64), layers_per_block=1, norm_type="spatial",
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    )  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval().requires_grad_(False)


def test_the_image_decoder_of_diffusers(theirs):
    decoder = MoVQDecoder(CONFIG).eval()
    decoder.load_state_dict(from_diffusers(theirs.state_dict(), CONFIG))
    latents = torch.randn(2, 4, 3, 4, 6)
    with torch.no_grad():
        made = decoder(latents)
        for t in range(3):
            expected = theirs.decode(latents[:, :, t], force_not_quantize=True).sample
            torch.testing.assert_close(made[:, :, t], expected, rtol=1e-5, atol=1e-5)


def test_diffusers_has_no_video_decoder(theirs):
    with pytest.raises(InputError, match="decodes single frames"):
        from_diffusers(theirs.state_dict(), replace(CONFIG, temporal="resnet"))


def norm(name, width):
    yield f"{name}.norm_layer.weight", (width,)
    yield f"{name}.norm_layer.bias", (width,)
    for part in ("conv_y", "conv_b"):
        yield f"{name}.{part}.weight", (width, 4, 1, 1)
        yield f"{name}.{part}.bias", (width,)


def conv(name, width_in, width, *kernel):
    yield f"{name}.weight", (width, width_in, *kernel)
    yield f"{name}.bias", (width,)


def resnet(name, width_in, width, temporal):
    kernel = (3, 3, 3) if temporal == "inflate" else (3, 3)
    yield from norm(f"{name}.norm1", width_in)
    yield from conv(f"{name}.conv1", width_in, width, *kernel)
    yield from norm(f"{name}.norm2", width)
    yield from conv(f"{name}.conv2", width, width, *kernel)
    if width_in != width:
        yield from conv(f"{name}.nin_shortcut", width_in, width, 1, 1)
    if temporal in ("conv1d", "conv3d"):
        kernel = (3, 1, 1) if temporal == "conv1d" else (3, 3, 3)
        for i in (1, 2):
            yield f"{name}.temporal_merge{i}", (1,)
            yield from conv(f"{name}.temporal_projection{i}", width, width, *kernel)


def temporal_block(name, width):
    for i in (1, 2):
        yield from norm(f"{name}.norm{i}", width)
        yield from conv(f"{name}.conv{i}", width, width, 3, 1, 1)


def attention(name, width):
    yield from norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from conv(f"{name}.{part}", width, width, 1, 1)


def authors(temporal, with_attention):
    """(name, shape) of a checkpoint of the authors' with levels of 32 and 64: the decoder as their
    modules nest, and something of what stands beside it."""
    yield "encoder.conv_in.weight", (32, 3, 3, 3)
    yield from conv("quant_conv", 4, 4, 1, 1)
    yield from conv("post_quant_conv", 4, 4, 1, 1)
    yield from conv("decoder.conv_in", 4, 64, 3, 3)
    yield from resnet("decoder.mid.block_1", 64, 64, temporal)
    yield from resnet("decoder.mid.block_2", 64, 64, temporal)
    yield from conv("decoder.mid.block_1.temporal_flicker_proj", 1, 64)
    yield from attention("decoder.mid.attn_1", 64)
    if with_attention:
        yield from attention("decoder.mid.temporal_attn_1", 64)
    if temporal == "resnet":
        yield from temporal_block("decoder.mid.temporal_block_1", 64)
        yield from temporal_block("decoder.mid.temporal_block_2", 64)
    for level, width in ((0, 32), (1, 64)):
        for i in (0, 1):
            yield from resnet(f"decoder.up.{level}.block.{i}", 64 if i == 0 else width, width,
                              temporal)  # fmt: skip
            if temporal == "resnet":
                yield from temporal_block(f"decoder.up.{level}.temporal_block.{i}", width)
            if level == 1:
                yield from attention(f"decoder.up.1.attn.{i}", 64)
                if with_attention:
                    yield from attention(f"decoder.up.1.temporal_attn.{i}", 64)
    yield from conv("decoder.up.1.upsample.conv", 64, 64, 3, 3)
    yield from norm("decoder.norm_out", 32)
    yield from conv("decoder.conv_out", 32, 3, 3, 3)


def state(temporal="none", with_attention=False) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(shape) for name, shape in authors(temporal, with_attention)}


@pytest.mark.parametrize("with_attention", [False, True])
@pytest.mark.parametrize("temporal", ["none", "conv1d", "conv3d", "resnet", "inflate"])
def test_every_kind_of_the_authors_checkpoints_loads(temporal, with_attention):
    config = replace(CONFIG, temporal=temporal, temporal_attention=with_attention)
    found = state(temporal, with_attention)
    made = from_authors(found, config)
    MoVQDecoder(config).load_state_dict(made)
    spent = [k for k in found if any(x.data_ptr() == found[k].data_ptr() for x in made.values())]
    left = sorted(found.keys() - spent)
    assert all(".temporal_attn" in k or "flicker" in k or k.startswith(("encoder.", "quant_conv."))
               for k in left), left  # fmt: skip
    assert len(spent) == len(made)


def test_places_of_the_authors_names():
    """By hand, a few that a slip would swap."""
    found = state("conv1d", True)
    made = from_authors(found, replace(CONFIG, temporal="conv1d", temporal_attention=True))
    for own, name in {
        "layers.middle_block_1.time2.gate": "decoder.mid.block_2.temporal_merge2",
        "layers.middle_block_0.norm2.scale.weight": "decoder.mid.block_1.norm2.conv_y.weight",
        "layers.middle_block_0.norm2.shift.weight": "decoder.mid.block_1.norm2.conv_b.weight",
        "layers.level_0_block_1.conv1.weight": "decoder.up.0.block.1.conv1.weight",
        "layers.level_0_block_0.skip.weight": "decoder.up.0.block.0.nin_shortcut.weight",
        "layers.level_1_attention_1.norm.norm.bias": "decoder.up.1.attn.1.norm.norm_layer.bias",
        "layers.level_1_time_attention_0.norm.bias":
            "decoder.up.1.temporal_attn.0.norm.norm_layer.bias",
        "layers.level_1_up_0.conv.bias": "decoder.up.1.upsample.conv.bias",
        "norm_out.norm.weight": "decoder.norm_out.norm_layer.weight",
    }.items():  # fmt: skip
        assert torch.equal(made[own].flatten(), found[name].flatten()), own


def test_the_two_layouts_agree(theirs):
    """The same weights under the authors' names are the same decoder."""
    renamed = {}
    for name, x in theirs.state_dict().items():
        for old, new in (
            ("up_blocks.0", "up.1"), ("up_blocks.1", "up.0"), ("upsamplers.0", "upsample"),
            ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"), ("resnets", "block"),
            ("attentions", "attn"), ("spatial_norm", "norm"), ("to_out.0", "proj_out"),
            ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
        ):  # fmt: skip
            name = name.replace(old, new) if name.startswith("decoder.") else name
        renamed[name] = x
    a, b = from_authors(renamed, CONFIG), from_diffusers(theirs.state_dict(), CONFIG)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_what_does_not_fit_is_named():
    found = state()
    with pytest.raises(InputError, match=r"lacks `decoder.up.1.block.2.norm1.norm_layer.weight`"):
        from_authors(found, replace(CONFIG, blocks=3))
    with pytest.raises(InputError, match=r"hasn't the checkpoint's `decoder.mid.block_1.temporal"):
        from_authors(state("conv1d"), CONFIG)
    found["decoder.conv_in.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(InputError, match=r"`decoder.conv_in.weight` is \[64, 3, 3, 3\], not"):
        from_authors(found, CONFIG)
