"""Wan as released: published sizes and names, folders that load, and diffusers' samples.

Its own pipelines run on tiny random folders, with given text and noise. Measured on a CPU in
float32, largest error over largest value: latents 9e-7, frames 1.8e-6. What one would hardly see is
beyond the bound of 1e-4, too: 2e-3 for a first frame that isn't at t = 0, 3e-3 for one guidance
scale with both experts. A network in bfloat16 doesn't differ by a bit.
"""

import json
import warnings
from copy import deepcopy

import pytest
import torch

from vidgen.diffusion.level import Level
from vidgen.diffusion.solvers import euler
from vidgen.errors import InputError, UsageError
from vidgen.nn.causal_vae import CausalVAE
from vidgen.nn.wan_config import transformer_config, vae_config
from vidgen.nn.wan_dit import WanDiT
from vidgen.nn.wan_keys import TRANSFORMER, autoencoder, released
from vidgen.systems import wan
from vidgen.systems.base import Geometry, ModelFolder

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        UniPCMultistepScheduler,
        WanImageToVideoPipeline,
        WanPipeline,
        WanTransformer3DModel,
    )

# diffusers turns torch tensors into numpy arrays in a way that numpy 2 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNTS = {  # parameters; published are 1.3 B (1.42 by its files), 14 B, and 5 B
    "t2v-1.3b": 1_418_996_800,
    "t2v-14b": 14_288_491_584,
    "i2v-14b-480p": 16_394_878_784,
    "2.2-i2v-a14b": 14_288_901_184,
    "2.2-ti2v-5b": 4_999_787_712,
}
SAME = {"i2v-14b-720p": "i2v-14b-480p", "2.2-t2v-a14b": "t2v-14b"}  # in sizes
VAE_COUNTS = {"t2v-1.3b": 126_892_531, "2.2-ti2v-5b": 704_688_668}


def sizes(module):
    return {name: tuple(x.shape) for name, x in module.state_dict().items()}


def count(module):
    return sum(p.numel() for p in module.parameters())


# --- published sizes and names --------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_transformer(name):
    config = wan.PRESETS[name].transformer
    with torch.device("meta"):
        ours = WanDiT(config)
        theirs = WanTransformer3DModel(
            num_attention_heads=config.heads, num_layers=config.depth, ffn_dim=config.mlp_dim,
            in_channels=config.in_channels, out_channels=config.out_channels,
            image_dim=config.image_dim, added_kv_proj_dim=config.image_dim and config.dim,
        )  # fmt: skip
    own = sizes(ours)
    names = released(own, TRANSFORMER)
    assert {names[n]: shape for n, shape in own.items()} == sizes(theirs)
    assert count(ours) == COUNTS[name]
    assert transformer_config(json.loads(theirs.to_json_string()), "config.json") == config


@pytest.mark.parametrize("name", VAE_COUNTS)
def test_a_published_autoencoder(name):
    config = wan.PRESETS[name].vae
    wide = {} if name == "t2v-1.3b" else {
        "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True,
        "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
        "latents_mean": list(config.latents_mean), "latents_std": list(config.latents_std),
    }  # fmt: skip
    with torch.device("meta"):
        ours, theirs = CausalVAE(config), AutoencoderKLWan(**wide)
    own = sizes(ours)
    names = released(own, autoencoder(config))
    assert {names[n]: shape for n, shape in own.items()} == sizes(theirs)
    assert count(ours) == VAE_COUNTS[name]
    assert vae_config(json.loads(theirs.to_json_string()), "config.json") == config
    assert (config.stride, config.time_stride) == (16 if wide else 8, 4)


def test_presets_that_share_their_sizes():
    for name, other in SAME.items():
        assert wan.PRESETS[name].transformer == wan.PRESETS[other].transformer
    assert wan.PRESETS.keys() == COUNTS.keys() | SAME.keys()
    for preset in wan.PRESETS.values():
        shape = wan.latent_shape(preset.made, preset.transformer, preset.vae)
        assert shape[0] == preset.vae.channels == preset.transformer.out_channels
    assert shape == (48, 31, 44, 80)


# --- folders --------------------------------------------------------------------------------------

TINY = {
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 32,
    "text_dim": 10, "freq_dim": 16,
}  # fmt: skip
NORMAL = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 1.5]}
VAE_2_1 = {"base_dim": 6, "z_dim": 4, "num_res_blocks": 1, **NORMAL}
VAE_2_2 = VAE_2_1 | {
    "decoder_base_dim": 8, "is_residual": True, "patch_size": 2, "in_channels": 12,
    "out_channels": 12, "scale_factor_spatial": 16,
}  # fmt: skip
CHANNELS = {"in_channels": 4, "out_channels": 4}
PICTURE = {"in_channels": 12, "out_channels": 4}
CLIP = {"image_dim": 14, "added_kv_proj_dim": 24}
KINDS = {  # transformer, autoencoder, two experts, model_index.json
    "t2v": (CHANNELS, VAE_2_1, False, {}),
    "i2v 2.1": (PICTURE | CLIP, VAE_2_1, False, {}),
    "t2v 2.2": (CHANNELS, VAE_2_1, True, {"boundary_ratio": 0.875}),
    "i2v 2.2": (PICTURE, VAE_2_1, True, {"boundary_ratio": 0.9}),
    "ti2v 2.2": (CHANNELS, VAE_2_2, False, {"expand_timesteps": True}),
}


def shaken(module, seed):
    draw = torch.Generator().manual_seed(seed)
    for p in module.eval().requires_grad_(False).parameters():
        p.copy_(p * 0.5 + 0.1 * torch.randn(p.shape, generator=draw))
    return module


def made(kind, path):
    """Our folder and diffusers' parts of a tiny release, its transformer in shards."""
    sizes, vae, two, index = KINDS[kind]
    torch.manual_seed(0)
    parts = {"transformer": shaken(WanTransformer3DModel(**TINY, **sizes), 1)}
    if two:
        parts["transformer_2"] = shaken(WanTransformer3DModel(**TINY, **sizes), 2)
    parts["vae"] = shaken(AutoencoderKLWan(**vae), 3)
    parts["scheduler"] = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    for name, part in parts.items():
        shards = {"max_shard_size": "60KB"} if name.startswith("transformer") else {}
        part.save_pretrained(path / name, **shards)
    (path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **index}))
    return ModelFolder(path), parts


@pytest.fixture(scope="module", params=KINDS)
def released_folder(request, tmp_path_factory):
    return request.param, *made(request.param, tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory):
    return made("t2v", tmp_path_factory.mktemp("one"))[0]


def error(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


STEPS, FRAMES = 6, 9


def theirs(kind, parts, z, cond, uncond, pictures):
    """diffusers' own pipeline, from noise to latents."""
    options = KINDS[kind][3]
    pictured = "first" in cond or "given" in cond
    pipeline = (WanImageToVideoPipeline if pictured else WanPipeline)(
        tokenizer=None, text_encoder=None, **parts, **options
    )
    pipeline.set_progress_bar_config(disable=True)
    stride = parts["vae"].config.scale_factor_spatial
    given = {
        "prompt_embeds": cond["text"], "negative_prompt_embeds": uncond["text"], "latents": z,
        "height": z.shape[3] * stride, "width": z.shape[4] * stride, "num_frames": FRAMES,
        "num_inference_steps": STEPS, "guidance_scale": 4.0, "output_type": "latent",
    }  # fmt: skip
    if "boundary_ratio" in options:
        given["guidance_scale_2"] = 3.0
    if pictured:
        shares = [(picture + 1) / 2 for picture in pictures]  # they want 0…1
        given |= dict(zip(("image", "last_image"), shares, strict=False))
    if "image" in cond:  # their pipeline takes no picture beside CLIP's tokens of it
        pipeline.encode_image = lambda *pictures: cond["image"]
    return pipeline(**given, return_dict=False)[0]


def ours(folder, z, cond, uncond):
    settings = wan.load_settings(folder)
    high, low = wan.load_transformer(folder), None
    if settings.boundary is not None:
        low = wan.load_transformer(folder, "transformer_2")
    denoise = wan.wan_denoiser(wan.called(high, low, settings.boundary))
    denoise = wan.guided(denoise, uncond, 4.0, low and 3.0, settings.boundary)
    *_, step = wan.solver(settings)(denoise, z, wan.levels(settings, STEPS), cond)
    return step.z


def task(kind, folder, pictured, last=False):
    """Noise, conditions and pictures of a run."""
    vae = wan.load_autoencoder(folder)
    z, text, negative = drawn(1, 1, 4, 3, 4, 6), drawn(2, 1, 512, 10), drawn(3, 1, 512, 10)
    cond, uncond, pictures = {"text": text}, {"text": negative}, []
    if pictured:
        stride = vae.config.stride
        pictures = [drawn(s, 1, 3, 4 * stride, 6 * stride).clamp(-1, 1) for s in (4, 5)]
        pictures = pictures[: 1 + last]
        if kind == "ti2v 2.2":
            extra = {"first": vae.encode(pictures[0][:, :, None])}
        else:
            extra = {"given": wan.given_frames(vae, pictures[0], FRAMES, *pictures[1:])}
        if kind == "i2v 2.1":
            extra["image"] = drawn(6, 1, 7, 14)
        cond, uncond = cond | extra, uncond | extra
    return z, cond, uncond, pictures


def test_samples_as_diffusers(released_folder):
    """The whole loop: conditions, levels, network, guidance, UniPC."""
    kind, folder, parts = released_folder
    pictured = [kind.startswith("i2v")] if kind != "ti2v 2.2" else [False, True]
    for given in pictured:
        z, cond, uncond, pictures = task(kind, folder, given, last=kind == "i2v 2.2")
        wanted = theirs(kind, parts, z, cond, uncond, pictures)
        assert (wanted - z).abs().mean() > 0.1  # it has gone somewhere
        assert error(ours(folder, z, cond, uncond), wanted) <= 1e-4


def test_frames_as_diffusers(released_folder):
    _, folder, parts = released_folder
    latents = drawn(7, 1, 4, 3, 2, 2)
    mean, std = (torch.tensor(NORMAL[k])[:, None, None, None] for k in NORMAL)
    wanted = parts["vae"].decode(latents * std + mean).sample
    assert error(wan.load_autoencoder(folder).decode(latents, chunk=2), wanted) <= 1e-5


def test_bfloat16_keeps_the_released_islands(released_folder):
    """Names of what stays float32 are diffusers'; the error against float32 is theirs, too."""
    kind, folder, parts = released_folder
    low = wan.load_transformer(folder, dtype=torch.bfloat16)
    other = deepcopy(parts["transformer"])
    for name, p in other.named_parameters():  # as from_pretrained does
        if not set(other._keep_in_fp32_modules) & set(name.split(".")):
            p.data = p.data.bfloat16()
    names, state = released(low.state_dict(), TRANSFORMER), other.state_dict()
    for own, x in low.state_dict().items():
        assert x.dtype == state[names[own]].dtype, own
    z, cond, _, _ = task(kind, folder, kind.startswith("i2v"))
    if "given" in cond:
        z = torch.cat((z, cond["given"]), dim=1)
    t, image = torch.tensor([900.0]), cond.get("image")
    exact = wan.load_transformer(folder)(z, t, text=cond["text"], image=image)
    found = low(z, t, text=cond["text"], image=image).float()
    image = None if image is None else image.bfloat16()
    with torch.no_grad():
        wanted = other(z.bfloat16(), t, cond["text"].bfloat16(), image, return_dict=False)[0]
    assert error(found, exact) <= 1.5 * error(wanted.float(), exact)


# --- levels, and what is chosen by them -----------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_levels_of_both_schedulers(shift):
    flow = FlowMatchEulerDiscreteScheduler(shift=shift)
    flow.set_timesteps(7)
    found = wan.levels(wan.Settings(shift, "euler"), 7)
    sigmas = torch.stack([level.sigma for level in found])
    torch.testing.assert_close(sigmas, flow.sigmas, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack([level.t for level in found[:-1]]), flow.timesteps)
    unipc = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    unipc.set_timesteps(7)
    found = wan.levels(wan.Settings(1.0), 7, shift)
    assert [int(level.t) for level in found[:-1]] == unipc.timesteps.tolist()


def level_of(t):
    return Level(*(torch.tensor([x]) for x in (t, 1 - t / 1000, t / 1000)))


def test_the_boundary_chooses_network_and_scale():
    seen = []

    class Marked:
        def __init__(self, mark):
            self.mark = mark

        def __call__(self, z, t, *, text, image, told):
            seen.append(self.mark)
            return z * 0 + text

    raw = wan.called(Marked("high"), Marked("low"), 0.875)
    denoise = wan.wan_denoiser(raw)
    cond, uncond = {"text": torch.tensor(1.0).reshape(1)}, {"text": torch.zeros(1)}
    denoise = wan.guided(denoise, uncond, 4.0, 3.0, 0.875, batched=False)
    z = torch.zeros(1, 1)
    for t, mark, scale in ((875.0, "high", 4.0), (874.0, "low", 3.0)):
        found = denoise(z, level_of(t), cond)
        assert seen[-2:] == [mark, mark]
        torch.testing.assert_close(found, torch.full((1, 1), -scale * t / 1000))
    with pytest.raises(UsageError, match="both networks"):
        raw(z, torch.tensor([875.0, 874.0]), cond)


# --- conditions and sizes -------------------------------------------------------------------------


def test_text_behind_the_prompt_is_zeros():
    text = wan.padded(torch.ones(2, 600, 3), torch.arange(600) < torch.tensor([[4], [600]]))
    assert text.shape == (2, 512, 3)
    assert text.sum(dim=(1, 2)).tolist() == [12, 1536]
    assert wan.padded(torch.ones(1, 5, 3), torch.ones(1, 5)).sum() == 15


def test_sizes_that_cannot_be_made():
    preset = wan.PRESETS["2.2-ti2v-5b"]
    networks = preset.transformer, preset.vae
    with pytest.raises(UsageError, match="120 frames") as caught:
        wan.latent_shape(Geometry(120, 704, 1280, 24.0), *networks)
    assert caught.value.next == "--num-frames 117 or 121"
    with pytest.raises(UsageError, match="divide by 32x32"):
        wan.latent_shape(Geometry(121, 720, 1280, 24.0), *networks)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("transformer/config.json", {"_class_name": "WanVACETransformer3DModel"}, "of class WanV"),
        ("transformer/config.json", {"window": [1, 1]}, "nothing is known of window"),
        ("transformer/config.json", {"cross_attn_norm": False}, "cross_attn_norm is false, kn"),
        ("transformer/config.json", {"added_kv_proj_dim": 7}, "added_kv_proj_dim is 7, known"),
        ("transformer/config.json", {"num_layers": "two"}, "builds no network"),
        ("transformer/config.json", {"num_layers": 1}, "blocks.1.* besides"),
        ("transformer/config.json", {"num_layers": 3}, r"it lacks `blocks.2.scale_shift_table` "),
        ("transformer/config.json", {"ffn_dim": 30}, "not of the network's shape: `blocks.0.ffn"),
        ("vae/config.json", {"attn_scales": [0.5]}, "attn_scales is "),
        ("vae/config.json", {"scale_factor_spatial": 32}, "scale_factor_spatial is 32, known is"),
        ("vae/config.json", {"latents_mean": [0.0]}, "1 latents_mean of 4 channels"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, 'known is "flow_pred'),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas is tr"),
        ("scheduler/scheduler_config.json", {"solver_order": 4}, "solver_order is 4"),
        ("scheduler/scheduler_config.json", {"flow_shift": 0}, "shift is 0"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "class DDIMSch"),
        ("model_index.json", {"boundary_ratio": 875}, "boundary_ratio is 875"),
    ],
)
def test_what_would_be_computed_otherwise(one_folder, file, change, said):
    folder = one_folder
    path = folder.path / file
    before = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(before) | change))
        with pytest.raises(InputError, match=said):
            changed = ModelFolder(folder.path)
            wan.load_settings(changed)
            wan.load_autoencoder(changed)
            wan.load_transformer(changed)
    finally:
        path.write_text(before)


def test_an_euler_folder(one_folder):
    path = one_folder.path / "scheduler"
    before = (path / "scheduler_config.json").read_text()
    try:
        FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(path)
        settings = wan.load_settings(ModelFolder(one_folder.path))
        assert (settings.solver, settings.shift) == ("euler", 5.0)
        assert wan.solver(settings) is euler
    finally:
        (path / "scheduler_config.json").write_text(before)
