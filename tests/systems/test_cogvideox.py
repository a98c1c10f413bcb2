"""CogVideoX's folders: read, named, loaded; and sampled as diffusers' pipelines sample them."""

import functools
import json
import warnings

import pytest
import torch

from tests import cogvideox_tiny as tiny
from vidgen.diffusion.guidance import cfg, dynamic_cfg
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.errors import InputError, UsageError
from vidgen.nn.cogvideox_config import transformer_config, vae_config
from vidgen.nn.cogvideox_dit import CogVideoXDiT
from vidgen.nn.cogvideox_keys import released, transformer_keys, vae_keys
from vidgen.nn.cogvideox_vae import CogVideoXAutoencoder
from vidgen.nn.keys import shapes
from vidgen.systems import cogvideox
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.cogvideox import PRESETS, scheduler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXDPMScheduler,
        CogVideoXImageToVideoPipeline,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

# What differs between the released transformers; all else is diffusers' default.
RELEASED: dict[str, dict] = {
    "2b": {},
    "5b": {"num_attention_heads": 48, "num_layers": 42} | tiny.ROTARY,
    "5b-i2v": {"num_attention_heads": 48, "num_layers": 42, "in_channels": 32} | tiny.LEARNED,
    "1.5-5b": {
        "num_attention_heads": 48, "num_layers": 42, "patch_size_t": 2, "patch_bias": False,
        "sample_height": 300, "sample_width": 300, "sample_frames": 81, "max_text_seq_length": 224,
    } | tiny.ROTARY,
}  # fmt: skip
RELEASED["1.5-5b-i2v"] = RELEASED["1.5-5b"] | {"in_channels": 32, "ofs_embed_dim": 512}
MILLIONS = {"2b": 1693.8, "5b": 5570.3, "5b-i2v": 5570.5, "1.5-5b": 5570.7, "1.5-5b-i2v": 5571.6}

SAMPLING = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "set_alpha_to_one": True, "timestep_spacing": "trailing",
}  # fmt: skip
NOISE = Noise([(1, "a"), (2, "b")], "cogvideox")
STEPS = 10


def on_meta(build, *args, **settings):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(*args, **settings)


# --- names and sizes ------------------------------------------------------------------------------


def same_tensors(own, theirs, keys):
    assert len(set(keys.values())) == len(keys)
    state = shapes(own.state_dict())
    names = released(state, keys)
    assert {name: state[mine] for name, mine in names.items()} == shapes(theirs.state_dict())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_released_names_and_sizes(name):
    config = PRESETS[name].transformer
    own = on_meta(CogVideoXDiT, config)
    theirs = on_meta(CogVideoXTransformer3DModel, **RELEASED[name])
    same_tensors(own, theirs, transformer_keys(config))
    parameters = sum(x.numel() for x in own.parameters())
    assert parameters == sum(x.numel() for x in theirs.parameters())
    assert parameters / 1e6 == pytest.approx(MILLIONS[name], abs=0.05)
    assert transformer_config(tiny.settings(theirs), "theirs") == config


@pytest.mark.parametrize("name", ["2b", "5b", "1.5-5b-i2v"])
def test_autoencoders_have_the_released_names_and_sizes(name):
    config = PRESETS[name].vae
    own = on_meta(CogVideoXAutoencoder, config)
    theirs = on_meta(
        AutoencoderKLCogVideoX,
        scaling_factor=1.15258426 if name == "2b" else 0.7,
        invert_scale_latents=name == "1.5-5b-i2v",
    )
    same_tensors(own, theirs, vae_keys(config))
    assert sum(x.numel() for x in own.parameters()) / 1e6 == pytest.approx(215.6, abs=0.05)
    assert vae_config(tiny.settings(theirs), "theirs") == config


# --- folders --------------------------------------------------------------------------------------


def written(path, kind, sampler=CogVideoXDDIMScheduler, snr_shift=1.0):
    """A released folder without its text encoder, and diffusers' own parts of it."""
    network = tiny.transformer(kind)
    vae = tiny.autoencoder(invert_scale_latents=kind == "1.5-5b-i2v", scaling_factor=0.7)
    parts = (network, vae, sampler(**SAMPLING, snr_shift_scale=snr_shift))
    network.save_pretrained(path / "transformer", max_shard_size="50KB")
    vae.save_pretrained(path / "vae")
    parts[2].save_pretrained(path / "scheduler")
    (path / "model_index.json").write_text('{"_class_name": "CogVideoXPipeline"}')
    return ModelFolder(path), parts


def test_a_sharded_folder_loads(tmp_path):
    folder, (network, vae, _) = written(tmp_path, "5b")
    assert len(folder.weight_files("transformer")) > 1
    own = cogvideox.load_transformer(folder)
    state = network.state_dict()
    for name, mine in released(own.state_dict(), transformer_keys(own.config)).items():
        assert torch.equal(own.state_dict()[mine], state[name])
    assert torch.equal(
        cogvideox.load_autoencoder(folder).decoder.levels[1].blocks[0].norm2.scale.weight,
        vae.decoder.up_blocks[1].resnets[0].norm2.conv_y.conv.weight,
    )


def test_other_weights_are_refused_by_their_names(tmp_path):
    folder, _ = written(tmp_path, "5b")
    path = tmp_path / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 3}))
    with pytest.raises(
        InputError, match=r"lacks `transformer_blocks.2.norm1.norm.weight` \(32\), .* 19 more"
    ):
        cogvideox.load_transformer(folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 1}))
    with pytest.raises(InputError, match=r"holds `transformer_blocks.1.\S+` \(.* besides"):
        cogvideox.load_transformer(folder)


@pytest.mark.parametrize(
    ("read", "kind", "wrong", "said"),
    [
        (transformer_config, "CogVideoXTransformer3DModel", *rest)
        for rest in (
            ({"_class_name": "WanTransformer3DModel"}, "its class is \"WanTransformer3DModel\""),
            ({"attention_bias": False}, "attention_bias is false, only true is built here"),
            ({"activation_fn": "geglu"}, "activation_fn is \"geglu\""),
            ({"freq_shift": 1}, "freq_shift is 1"),
            ({"num_layers": "30"}, "num_layers is \"30\", must be such as 30"),
            ({"patch_size": 0}, "patch_size is 0"),
            ({"use_learned_positional_embeddings": True}, "no released model has that"),
            ({"ofs_embed_dim": 64}, "offset_dim 64 is not time_dim 512"),
            ({"sliding_window": 9}, "sliding_window is 9, and nobody here knows that key"),
        )
    ]
    + [
        (vae_config, "AutoencoderKLCogVideoX", *rest)
        for rest in (
            ({"latents_mean": [0.0]}, "latents_mean is \\[0.0\\], only null is built here"),
            ({"use_post_quant_conv": True}, "use_post_quant_conv is true"),
            ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types is"),
            ({"temporal_compression_ratio": 3}, "time_stride 3 of 4 levels"),
            ({"norm_eps": 1e-5}, "norm_eps is 1e-05"),
        )
    ]
    + [
        (scheduler, "CogVideoXDDIMScheduler", *rest)
        for rest in (
            ({"_class_name": "DDIMScheduler"}, "not CogVideoXDDIMScheduler or CogVideoXDPM"),
            ({"clip_sample": True}, "clip_sample is true, known: false"),
            ({"beta_schedule": "linear"}, "beta_schedule is \"linear\""),
            ({"set_alpha_to_one": False}, "set_alpha_to_one is false"),
            ({"prediction_type": "flow"}, "prediction_type is \"flow\", known: \"v_prediction\""),
            ({"timestep_spacing": "even"}, "timestep_spacing is \"even\", known: \"trailing\""),
            ({"use_karras_sigmas": True}, "nobody here knows that key"),
        )
    ],
)  # fmt: skip
def test_values_that_would_compute_something_else_are_refused(read, kind, wrong, said):
    fine = {"_class_name": kind, "_diffusers_version": "0.30.0", "some_switch": False}
    if read is scheduler:
        fine["clip_sample"] = False
    read(fine, "FILE")
    with pytest.raises(InputError, match=f"^FILE: .*{said}"):
        read(fine | wrong, "FILE")


def test_a_scheduler_that_says_nothing_of_clipping_clips():
    with pytest.raises(InputError, match="clip_sample is true"):
        scheduler({"_class_name": "CogVideoXDDIMScheduler"}, "FILE")


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "frames", "nearest"),
    [
        ("2b", 50, "49 or 57"),
        ("5b", 48, "41 or 49"),
        ("5b", 0, "1 or 9"),
        ("5b", -3, "1 or 9"),
        ("1.5-5b", 89, "81 or 97"),
        ("1.5-5b-i2v", 160, "145 or 161"),
    ],
)
def test_other_numbers_of_frames_name_the_two_nearest(name, frames, nearest):
    with pytest.raises(UsageError) as caught:
        cogvideox.check_frames(frames, PRESETS[name].transformer, PRESETS[name].vae)
    assert caught.value.next == f"--num-frames {nearest}"


@pytest.mark.parametrize("name", PRESETS)
def test_latents_of_what_presets_make(name):
    preset = PRESETS[name]
    shape = cogvideox.latent_shape(preset.geometry, preset.transformer, preset.vae)
    assert shape == ((16, 22, 96, 170) if name.startswith("1.5") else (16, 13, 60, 90))
    z = torch.arange(shape[1]).reshape(1, 1, -1, 1, 1)
    kept = cogvideox.without_padding(z, preset.geometry.num_frames, preset.vae)
    assert kept.flatten().tolist() == list(range(1 if name.startswith("1.5") else 0, shape[1]))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_sampled_from_pure_noise(name):
    own = PRESETS[name].scheduler
    theirs = CogVideoXDDIMScheduler(**SAMPLING, snr_shift_scale=3.0 if name == "2b" else 1.0)
    assert scheduler({"_class_name": type(theirs).__name__, **theirs.config}, "theirs") == own
    levels = own.levels(cogvideox.STEPS)
    theirs.set_timesteps(cogvideox.STEPS)
    assert [int(level.t) for level in levels[:-1]] == theirs.timesteps.tolist()
    assert float(levels[0].alpha) == 0
    alpha = torch.stack([level.alpha for level in levels[:-1]]).double()
    torch.testing.assert_close(alpha**2, theirs.alphas_cumprod[theirs.timesteps])


def test_sides_that_can_not_be_made():
    small, table = PRESETS["5b"], PRESETS["5b-i2v"]
    with pytest.raises(UsageError, match="720x488 pixels, and sides must divide by 16"):
        cogvideox.latent_shape(Geometry(49, 488, 720, 8.0), small.transformer, small.vae)
    other = Geometry(49, 480, 704, 8.0)
    assert cogvideox.latent_shape(other, small.transformer, small.vae) == (16, 13, 60, 88)
    with pytest.raises(UsageError, match="704x480 pixels, and this model knows 720x480 only"):
        cogvideox.latent_shape(other, table.transformer, table.vae)


# --- sampling -------------------------------------------------------------------------------------


def pipeline_noise(pipeline, monkeypatch, shape):
    """Let diffusers' DPM scheduler draw, at each step, what our solver draws at that step."""
    step, at = pipeline.scheduler.step, iter(range(STEPS))
    draws: list[torch.Tensor] = []

    @functools.wraps(step)
    def counted(*args, **kwargs):
        draws[:] = [NOISE.step(next(at), shape).transpose(1, 2)]
        return step(*args, **kwargs)

    pipeline.scheduler.step = counted
    monkeypatch.setitem(
        CogVideoXDPMScheduler.step.__globals__, "randn_tensor", lambda *a, **k: draws[0]
    )


def text(seed):
    return torch.randn(
        2, tiny.TEXT_TOKENS, tiny.TEXT_DIM, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "sampler", "frames"),
    [
        ("2b", CogVideoXDDIMScheduler, 9),
        ("5b", CogVideoXDPMScheduler, 9),
        ("5b-i2v", CogVideoXDPMScheduler, 9),
        ("1.5-5b", CogVideoXDDIMScheduler, 17),
        ("1.5-5b-i2v", CogVideoXDPMScheduler, 17),
    ],
)
def test_text_embeddings_to_frames_as_diffusers_pipelines(
    tmp_path, monkeypatch, kind, sampler, frames
):
    """A folder written by diffusers, 10 steps, guided, decoded. Measured:
    3.3e-7 to 4.0e-7."""
    folder, parts = written(tmp_path, kind, sampler, 3.0 if kind == "2b" else 1.0)
    made = Geometry(frames, 64, 96, 8.0)
    network, vae = cogvideox.load_transformer(folder), cogvideox.load_autoencoder(folder)
    settings = cogvideox.load_scheduler(folder)
    shape = cogvideox.latent_shape(made, network.config, vae.config)

    pictured = kind.endswith("i2v")
    make = CogVideoXImageToVideoPipeline if pictured else CogVideoXPipeline
    pipeline = make(None, None, *(parts[i] for i in (1, 0, 2)))
    pipeline.set_progress_bar_config(disable=True)
    pipeline_noise(pipeline, monkeypatch, shape)
    picture = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(5)) * 2 - 1
    expected = pipeline(
        height=64, width=96, num_frames=frames, num_inference_steps=STEPS, guidance_scale=6.0,
        use_dynamic_cfg=settings.dynamic_guidance, prompt_embeds=text(3),
        negative_prompt_embeds=text(4), latents=NOISE.initial(shape).transpose(1, 2),
        generator=torch.Generator().manual_seed(6), output_type="latent", return_dict=False,
        **({"image": (picture + 1) / 2} if pictured else {}),
    )[0].transpose(1, 2)  # fmt: skip

    image = None
    if pictured:  # diffusers draws a picture at a time, from the one generator
        generator = torch.Generator().manual_seed(6)
        eps = [torch.randn(1, 4, 1, 8, 12, generator=generator) for _ in picture]
        image = cogvideox.image_condition(vae, picture, shape[1], torch.cat(eps))
    cond, uncond = ({"text": x, "image": image} for x in (text(3), text(4)))
    plain = denoiser(cogvideox.called(network), settings.prediction())
    if settings.dynamic_guidance:
        guided = dynamic_cfg(plain, uncond, 6.0, STEPS)
    else:
        guided = cfg(plain, uncond, 6.0)
    levels = settings.levels(STEPS)
    *_, last = settings.solver()(guided, NOISE.initial(shape), levels, cond, NOISE)
    assert tiny.error(last.z, expected) < 1e-4

    z = cogvideox.without_padding(last.z, frames, vae.config)
    decoded = pipeline.decode_latents(z.transpose(1, 2))
    assert decoded.shape == (2, 3, frames, 64, 96)
    assert tiny.error(vae.decode(z), decoded) < 1e-6
