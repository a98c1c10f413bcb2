"""Published layouts: the authors' `.pt` files of Kandinsky Video, and diffusers' Kandinsky 3."""

import re
import warnings
import zlib
from dataclasses import replace

import pytest
import torch

from vidgen.errors import InputError, UsageError
from vidgen.nn.unet import UNet
from vidgen.systems import fusion_frames_keys as keys
from vidgen.systems.fusion_frames import PAPER

SMALL = {
    "init_channels": 8, "widths": (16, 32), "self_attention": (False, True),
    "cross_attention": (False, True), "blocks": 2, "head_dim": 8, "groups": 4, "time_dim": 32,
}  # fmt: skip
CONFIGS = {
    "keyframes-1.0": replace(PAPER["keyframes-1.0"], **SMALL, text_dim=20, context_dim=24),
    "keyframes-1.1": replace(PAPER["keyframes-1.1"], **SMALL, text_dim=20, context_dim=24),
    "interpolation-1.0": replace(PAPER["interpolation-1.0"], **SMALL, text_dim=24),
    "interpolation-1.1": replace(PAPER["interpolation-1.1"], **SMALL, text_dim=20, context_dim=24),
}

# Ours → theirs, one substitution after the other: written from the authors' modules, not from the
# tables under test.
COMMON = [
    (r"^text\.null$", "null_embedding"),
    (r"^(?!null_embedding|text\.project)", "unet."),
    (r"unet\.stem\.", "unet.in_layer."),
    (r"unet\.image_stem\.", "unet.image_in_layer."),
    (r"unet\.norm\.", "unet.out_layer.0."),
    (r"unet\.out\.", "unet.out_layer.2."),
    (r"unet\.text\.pool\.", "unet.feature_pooling.attention."),
    (r"layers\.0", "1"),
    (r"layers\.2", "3"),
    (r"level_embed", "to_time_embed"),
    (r"frame_embed", "to_temporal_embed"),
    (r"skip_embed", "skip_embeddings"),
    (r"skip_gate", "skip_merge"),
    (r"noise_gate", "time_embed_merge"),
    (r"(down|up)\.(\d)\.", r"\1_samples.\2."),
    (r"self_attn\.", "self_attention_block."),
    (r"time_attn\.", "temporal_attention_block."),
    (r"pairs\.(\d)\.time_(?:in\.|out\.)", None),
    (r"norms\.(\d)\.project", r"temporal_resnet_blocks.\1.0.context_mlp.1"),
    (r"convs\.(\d)", r"temporal_resnet_blocks.\1.2"),
    (r"pairs\.(\d)\.res_in\.", r"resnet_attn_blocks.\1.0."),
    (r"pairs\.(\d)\.cross_attn\.", r"resnet_attn_blocks.\1.1."),
    (r"pairs\.(\d)\.res_out\.", r"resnet_attn_blocks.\1.2."),
    (r"units\.", "resnet_blocks."),
    (r"shortcut(?=\.)", "shortcut_projection"),
    (r"shortcut_(up|down)", r"shortcut_\1_sample"),
    (r"(resnet_blocks\.\d)\.(up|down)\.", r"\1.\2_sample."),
    (r"(resnet_blocks\.\d)\.conv\.", r"\1.projection."),
    (r"\.ff\.", ".feed_forward."),
    (r"norm\.project", "group_norm.context_mlp.1"),
    (r"norm1\.project", "in_norm.context_mlp.1"),
    (r"norm2\.project", "out_norm.context_mlp.1"),
    (r"attention\.q", "attention.to_query"),
    (r"attention\.k", "attention.to_key"),
    (r"attention\.v", "attention.to_value"),
    (r"attention\.out(?=\.)", "attention.output_layer"),
]
OWN = {
    "keyframes-1.0": [
        (r"(temporal_attention_block\.)attention", r"\1temporal_attention"),
        (r"text\.project", "projections.t5"),
    ],
    "keyframes-1.1": [
        (r"(temporal_attention_block\.)attention", r"\1temporal_attention"),
        (r"(temporal_attention_block\.)in_norm", r"\1temporal_norm"),
        (r"(temporal_attention_block\.)out_norm", r"\1ff_norm"),
        (r"noise_embed", "temporal_noise_aug_time_encoding"),
        (r"motion_embed", "temporal_motion_score_encoding"),
        (r"text\.project", "projection_base"),
    ],
    "interpolation-1.0": [
        (r"noise_embed", "perturbation_to_time_embed"),
        (r"time_conv\.gate", "temporal_merge"),
        (r"time_conv\.conv", "temporal_projection"),
    ],
    "interpolation-1.1": [
        (r"noise_embed", "perturbation_to_time_embed"),
        (r"time_conv\.gate", "temporal_projection_new.temporal_merge"),
        (r"time_conv\.conv", "temporal_projection_new.temporal_projection"),
        (r"gate([12])", r"temporal_merge\1"),
        (r"text\.project", "projection_base"),
    ],
}


def their_name(own, kind):
    for pattern, new in COMMON + OWN[kind]:
        if new is None:  # the temporal blocks stand behind the other three
            own = re.sub(r"pairs\.(\d)\.time_in\.", r"resnet_attn_blocks.\1.3.", own)
            own = re.sub(r"pairs\.(\d)\.time_out\.", r"resnet_attn_blocks.\1.4.", own)
        else:
            own = re.sub(pattern, new, own)
    return own


def fill(name, shape):
    """Weights that a name and a shape determine."""
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scale = 0.3 if len(shape) < 2 else torch.Size(shape[1:]).numel() ** -0.5
    return scale * torch.randn(shape, generator=draw)


def checkpoint(kind):
    """A tiny checkpoint of that kind, by the names in it, and the same weights by ours."""
    own = UNet(CONFIGS[kind]).state_dict()
    names = {name: their_name(name, kind) for name in own}
    assert len(set(names.values())) == len(names)
    return {names[k]: fill(names[k], x.shape) for k, x in own.items()}, names


def nested(state):
    """{"a.b.c": x} → {"a": {"b.c": x}}, one level deep, and "projections" two as in the file."""
    out = {}
    for name, x in state.items():
        head, _, rest = name.partition(".")
        if rest:
            out.setdefault(head, {})[rest] = x
        else:
            out[name] = x[None]  # null_embedding with an axis for its token
    return out


def files(kind, folder):
    """The checkpoint as the authors' files: arguments of `load_authors`."""
    state, _ = checkpoint(kind)
    found = nested(state)
    more = {}
    if "projection_base" in found:
        both = {"projection_base": found.pop("projection_base")}
        both["projection_interpolation"] = {k: -x for k, x in both["projection_base"].items()}
        torch.save(both, folder / "t5_projections.pt")
        more["projections"] = folder / "t5_projections.pt"
    torch.save(found, folder / "unet.pt")
    return (folder / "unet.pt", CONFIGS[kind], kind[-3:]), more


def asked(kind):
    """Arguments of a call that reaches every part: two clips of 3 frames, one text shorter."""
    config = CONFIGS[kind]
    draw = torch.Generator().manual_seed(5)
    told = {
        "z": torch.randn(2, config.in_channels, 3, 4, 6, generator=draw),
        "t": torch.tensor([7.0, 900.0]),
    }
    if kind != "interpolation-1.0":
        told["text"] = torch.randn(2, 6, 20, generator=draw)
        told["text_mask"] = torch.arange(6) < torch.tensor([[6], [4]])
    if kind == "keyframes-1.0":
        told["times"] = torch.tensor([0.0, 2.5, 5.0]).expand(2, -1)  # positions 0, 60, 120
    if kind == "keyframes-1.1":
        told["noise_level"], told["motion"] = torch.tensor([20.0, 30.0]), torch.tensor([10.0, 1.0])
    if kind.startswith("interpolation"):
        told["skip"] = torch.tensor([3, 1])
    if kind == "interpolation-1.1":
        told["noise_level"], told["temporal"] = torch.tensor([0.0, 25.0]), torch.tensor([1.0, 0.0])
    return told


@pytest.mark.parametrize("kind", CONFIGS)
def test_authors_files_load_to_what_the_same_weights_are_by_our_names(kind, tmp_path):
    args, more = files(kind, tmp_path)
    network = keys.load_authors(*args, **more)
    state, names = checkpoint(kind)
    native = UNet(CONFIGS[kind])
    native.load_state_dict({own: state[name] for own, name in names.items()})
    with torch.no_grad():
        assert torch.equal(network(**asked(kind)), native(**asked(kind)))


# Standard deviation and every 97th value of what the authors' own code gave, run once beside this
# test on these weights and inputs (torch 2.13.0, CPU, float32).
RECORDED = {
    "keyframes-1.0": [0.286198, 0.041562, 0.449059, 0.70753, -0.123756, 0.170585, 0.018939],
    "keyframes-1.1": [0.26108, -0.057235, 0.173924, 0.489554, -0.261498, 0.129158, 0.237776],
    "interpolation-1.0": [0.433794, -0.072094, -0.187638, 0.513544, -0.065131, 0.31449, 0.904174],
    "interpolation-1.1": [0.458759, 0.329605, -0.223509, 0.317702, 0.071742, 0.587326, 0.993627],
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_networks_compute_what_the_authors_code_computes(kind, tmp_path):
    args, more = files(kind, tmp_path)
    with torch.no_grad():
        out = keys.load_authors(*args, **more)(**asked(kind))
    found = [out.std().item(), *out.flatten()[::97][:6].tolist()]
    assert found == pytest.approx(RECORDED[kind], rel=1e-4, abs=2e-5)


def test_names_as_the_release_has_them():
    """A few, typed from its modules by hand."""
    table = keys.AUTHORS_1_0
    for own, name in {
        "down.1.pairs.0.res_in.units.2.norm.project.bias":
            "unet.down_samples.1.resnet_attn_blocks.0.0.resnet_blocks.2.group_norm.context_mlp.1.bias",
        "up.0.pairs.2.time_out.convs.3.weight":
            "unet.up_samples.0.resnet_attn_blocks.2.4.temporal_resnet_blocks.3.2.weight",
        "up.2.time_attn.attention.out.weight":
            "unet.up_samples.2.temporal_attention_block.temporal_attention.output_layer.weight",
        "down.3.pairs.1.res_out.units.0.time_conv.gate":
            "unet.down_samples.3.resnet_attn_blocks.1.2.resnet_blocks.0.temporal_merge",
    }.items():  # fmt: skip
        assert keys.theirs(own, table) == name


@pytest.mark.parametrize("kind", PAPER)
def test_every_tensor_of_a_published_network_has_a_name_of_its_own(kind):
    config = PAPER[kind]
    with torch.device("meta"):
        own = list(UNet(config).state_dict())
    release = keys.AUTHORS_1_0 if kind.endswith("1.0") else keys.authors_1_1(config.variant)
    assert len({keys.theirs(name, release) for name in own}) == len(own)


def test_a_file_of_another_network_is_refused_by_its_first_tensor(tmp_path):
    (path, config, release), _ = files("keyframes-1.0", tmp_path)

    def refusal(**changes):
        with pytest.raises(InputError) as caught:
            keys.load_authors(path, replace(config, **changes), release)
        return str(caught.value)

    where = f"{path}: "
    assert refusal(text_dim=21) == where + (
        "`projections.t5.0.weight` is 24×20, this config's is 24×21"
    )
    assert refusal(variant="spatial") == where + (
        "holds `unet.to_temporal_embed.1.weight` (32×8), which this config hasn't"
    )
    assert refusal(blocks=3).startswith(where + "lacks `unet.down_samples.0.resnet_attn_blocks.2")
    both = refusal(context_dim=0, text_dim=24, in_channels=4, skip_rows=20)
    assert both == where + (
        "lacks `unet.skip_merge` (1) and holds `projections.t5.0.weight` (24×20),"
        " which this config hasn't"
    )
    with pytest.raises(UsageError, match=r"no release `2\.0`"):
        keys.load_authors(path, config, "2.0")


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_file_that_would_run_code_is_not_run(tmp_path, capsys):
    torch.save({"unet": {"x": Evil()}}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="holds more than tensors"):
        keys.load_authors(tmp_path / "evil.pt", CONFIGS["keyframes-1.0"], "1.0")
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint at all")
    for path in (tmp_path / "noise.pt", tmp_path / "none.pt"):
        with pytest.raises(InputError):
            keys.load_authors(path, CONFIGS["keyframes-1.0"], "1.0")
    assert "run" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def kandinsky3():
    """A tiny random `Kandinsky3UNet`, its norms away from their neutral start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns about what isn't installed
        diffusers = pytest.importorskip("diffusers")
        network = diffusers.Kandinsky3UNet(
            in_channels=4, time_embedding_dim=32, groups=4, attention_head_dim=8,
            layers_per_block=2, block_out_channels=(16, 16, 32, 32), cross_attention_dim=24,
            encoder_hid_dim=20,
        )  # fmt: skip
    network.load_state_dict({k: fill(k, x.shape) for k, x in network.state_dict().items()})
    return network.eval()


@pytest.mark.parametrize("prompt", ["words", "empty"])
def test_the_spatial_network_is_diffusers_kandinsky_3(kandinsky3, prompt):
    config = keys.diffusers_config(kandinsky3.config)
    network = keys.from_diffusers(kandinsky3.state_dict(), config, "kandinsky3")
    draw = torch.Generator().manual_seed(3)
    z, t = torch.randn(2, 4, 8, 16, generator=draw), torch.tensor([3.0, 977.0])
    text = torch.randn(2, 6, 20, generator=draw)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    if prompt == "empty":  # as its pipeline asks for the branch without text
        text, mask = torch.zeros_like(text), torch.zeros_like(mask)
    with torch.no_grad():
        wanted = kandinsky3(z, t, text, mask.long(), return_dict=False)[0]
        found = network(z[:, :, None], t, text=text, text_mask=mask)[:, :, 0]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        if prompt == "empty":
            found = network(z[:, :, None], t)[:, :, 0]
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1
