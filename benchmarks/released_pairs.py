"""Sampling by ours and by diffusers' pipeline with the same random weights, noise and text: what
`benchmarks.released` and `benchmarks.released_cuda` run in turn."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidgen.diffusion.guidance import cfg
from vidgen.diffusion.prediction import denoiser
from vidgen.nn.cogvideox_config import transformer_config
from vidgen.nn.cogvideox_dit import CogVideoXConfig, CogVideoXDiT
from vidgen.nn.cogvideox_keys import released as released_cogvideox
from vidgen.nn.cogvideox_keys import transformer_keys
from vidgen.nn.meta import on_meta
from vidgen.nn.wan_dit import WanConfig, WanDiT, kept
from vidgen.nn.wan_keys import TRANSFORMER, released
from vidgen.systems import cogvideox, wan

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WORDS, NEGATIVE = 40, 110  # tokens of the prompt and of the negative one
SCALE = 5.0


@dataclass(frozen=True)
class Case:
    """A network, what it samples, and how often."""

    network: WanConfig | CogVideoXConfig
    latents: tuple[int, int, int]  # frames, rows, columns
    dtype: str
    steps: int = 2
    repeat: int = 3
    device: str = "cpu"
    exact: bool = False  # in float32, with weights rounded to the dtype

    @property
    def title(self) -> str:
        name = "wan" if isinstance(self.network, WanConfig) else "cogvideox"
        t, h, w = self.latents
        return f"{name}, {self.network.depth} blocks, {t * h * w // 4} tokens, {self.dtype}"


@dataclass(frozen=True)
class Pair:
    """Each sampling, of the case's steps or as many as it is told, gives z after every step of
    ours, of theirs after the last. The networks are there to be compiled."""

    ours: Callable[..., Iterator[Tensor]]
    theirs: Callable[..., Iterator[Tensor]]
    network: nn.Module
    their_network: Any


def pair(case: Case) -> Pair:
    warnings.simplefilter("ignore")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    config = case.network
    return _wan(case, config) if isinstance(config, WanConfig) else _cogvideox(case)


def _wan(case: Case, config: WanConfig) -> Pair:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from diffusers import WanTransformer3DModel as Theirs

    theirs = _built(
        case, Theirs, num_attention_heads=config.heads, num_layers=config.depth,
        ffn_dim=config.mlp_dim, in_channels=config.in_channels, out_channels=config.out_channels,
    )  # fmt: skip
    with on_meta():
        ours = WanDiT(config).eval().requires_grad_(False)
    names = released(ours.state_dict(), TRANSFORMER)
    own = {their: mine for mine, their in names.items()}
    for name, p in theirs.named_parameters():
        p.data = p.data.to(torch.float32 if case.exact else kept(own[name], DTYPES[case.dtype]))
    state = theirs.state_dict()
    ours.load_state_dict({mine: state[their] for mine, their in names.items()}, assign=True)
    z, cond, uncond = _drawn(case, config.out_channels, 512, padded=True)

    def run_ours(steps: int = case.steps) -> Iterator[Tensor]:
        settings = wan.Settings(3.0)
        denoise = wan.guided(wan.wan_denoiser(wan.called(ours)), uncond, SCALE)
        for step in wan.solver(settings)(denoise, z, wan.levels(settings, steps), cond):
            yield step.z

    pipeline = WanPipeline(
        tokenizer=None, text_encoder=None, transformer=theirs,
        vae=AutoencoderKLWan(base_dim=4, z_dim=config.out_channels, num_res_blocks=1,
                             latents_mean=[0.0] * config.out_channels,
                             latents_std=[1.0] * config.out_channels),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip

    def run_theirs(steps: int = case.steps) -> Iterator[Tensor]:
        yield _last(pipeline, case, steps, cond, uncond, z)

    return Pair(run_ours, run_theirs, ours, theirs)


def _cogvideox(case: Case) -> Pair:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline
    from diffusers import CogVideoXTransformer3DModel as Theirs

    t, h, w = case.latents
    theirs = _built(
        case, Theirs, num_attention_heads=case.network.heads, num_layers=case.network.depth,
        use_rotary_positional_embeddings=True, sample_height=h, sample_width=w,
        sample_frames=4 * (t - 1) + 1,
    )  # fmt: skip
    theirs = theirs.to(torch.float32 if case.exact else DTYPES[case.dtype])
    with on_meta():
        found = transformer_config(json.loads(theirs.to_json_string()), "config.json")
        ours = CogVideoXDiT(found).eval().requires_grad_(False)
    state = theirs.state_dict()
    names = released_cogvideox(ours.state_dict(), transformer_keys(ours.config))
    ours.load_state_dict({own: state[name] for name, own in names.items()}, assign=True)
    z, cond, uncond = _drawn(case, 16, 226, padded=False)

    def run_ours(steps: int = case.steps) -> Iterator[Tensor]:
        settings = cogvideox.Scheduler()
        free = denoiser(cogvideox.called(ours), settings.prediction())
        denoise = cfg(free, uncond, SCALE)
        for step in settings.solver()(denoise, z, settings.levels(steps), cond):
            yield step.z

    pipeline = CogVideoXPipeline(
        tokenizer=None, text_encoder=None, transformer=theirs,
        vae=AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
        ),
        scheduler=CogVideoXDDIMScheduler(
            beta_start=0.00085, beta_end=0.012, clip_sample=False, prediction_type="v_prediction",
            rescale_betas_zero_snr=True, timestep_spacing="trailing", snr_shift_scale=1.0,
        ),
    )  # fmt: skip
    turned = z.transpose(1, 2).to(theirs.dtype)

    def run_theirs(steps: int = case.steps) -> Iterator[Tensor]:
        yield _last(pipeline, case, steps, cond, uncond, turned).transpose(1, 2)

    return Pair(run_ours, run_theirs, ours, theirs)


def _built(case: Case, network: type, **sizes: Any) -> Any:
    """Random weights, on the device, rounded to the dtype."""
    torch.manual_seed(0)
    with torch.device(case.device):
        made = network(**sizes).eval().requires_grad_(False)
    for p in made.parameters():
        p.data = p.data.to(DTYPES[case.dtype])
    return made


def _drawn(
    case: Case, channels: int, length: int, *, padded: bool
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Noise `1 c t h w`, and text `1 l d` of prompt and negative prompt. `padded`: text behind a
    prompt's end is zeros, as Wan's is."""
    draw, texts = torch.Generator().manual_seed(0), []
    for words in (WORDS, NEGATIVE):
        text = torch.randn(1, length, 4096, generator=draw)
        if padded:
            text[:, words:] = 0
        texts.append({"text": text.to(case.device)})
    z = torch.randn(1, channels, *case.latents, generator=draw)
    return z.to(case.device), texts[0], texts[1]


def _last(
    pipeline: Any,
    case: Case,
    steps: int,
    cond: dict[str, Tensor],
    uncond: dict[str, Tensor],
    latents: Tensor,
) -> Tensor:
    """The latents after the last step of their pipeline."""
    pipeline.set_progress_bar_config(disable=True)
    t, h, w = case.latents
    dtype = pipeline.transformer.dtype
    factor = pipeline.vae_scale_factor_spatial
    return pipeline(
        prompt_embeds=cond["text"].to(dtype), negative_prompt_embeds=uncond["text"].to(dtype),
        height=factor * h, width=factor * w, num_frames=4 * (t - 1) + 1, latents=latents,
        num_inference_steps=steps, guidance_scale=SCALE, output_type="latent",
        return_dict=False,
    )[0]  # fmt: skip


def last(steps: Iterator[Tensor]) -> Tensor:
    """The sample, float32."""
    *_, z = steps
    return z.float()


def apart(found: Tensor, wanted: Tensor) -> float:
    """Relative difference over all numbers."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())
