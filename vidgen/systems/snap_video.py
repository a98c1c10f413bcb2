"""Snap Video (Menapace et al. 2024, arXiv 2402.14797): FIT transformers and input-scaled diffusion.

Video is redundant: the mean over T·k² alike pixels has so much less noise that a level made for
images hides nothing of it. So the signal is shrunk by sigma_in = k·√T before noise is added, and
EDM's coefficients follow (`vidgen.diffusion.prediction.Snap`). Images are videos of T equal frames,
each with noise of its own, and an infinite frame rate, so that one process learns both. The network
is `vidgen.nn.fit`; latent tokens are carried from step to step. A folder may have the network that
the paper compares it with instead, a U-Net that looks at time in between (`vidgen.nn.adm_unet`): it
is trained and sampled in the same way, but carries nothing, and isn't told sizes.

| symbol | here | meaning |
|---|---|---|
| x | x0 | the video, in −1 … 1; here also latents of an autoencoder, of unit spread |
| sigma_in | 1/`level.alpha` | how far the signal is shrunk: of 16 frames 4 at 64 px, 32 at 512 |
| sigma_data | `Snap.sigma_data` | spread of the data that the coefficients assume; 1 |
| F | `FIT` output | (sigma_data²·eps − sigma·x) / (sigma_data·√(sigma² + sigma_data²)) |
| w | `Snap.weight` | weight of F's error, up to sigma_in² where there is little noise |
| D | `denoise` | the estimate of x |
| c_noise | `t` | ln(sigma)/4 |

Published: all of the table, the sizes in `PAPER`, Heun with 256 steps and 40 for the upsampler,
EDM's distribution of levels, self-conditioning in nine of ten training samples, one in ten without
text; longer clips by reconstruction guidance (`vidgen.stages.extend`).
Not published, and ours: frame rates are told as seconds from frame to frame, 0 for images;
sizes as shares of the grid's; heights that don't divide are padded at the bottom with zeros, and
what is cut off again has no part in the loss; the low-resolution video of the upsampler comes on
further channels, enlarged bilinearly, with p times unit Gaussian noise on it and its noise level p
as a second token, p even from 0 to `UpsamplerSampler.max_noise_level` in training; the upsampler
begins with the base's positions, stretched over its larger grid, and zeros for those channels. Of
dynamic thresholding and oscillating guidance neither the share nor the pattern is published: they
are settings of a model that makes pixels (`PixelSampler`), off unless it says so. The size
that a clip once had is published as an input and, at test time, as a way to ask for coarser clips
(C.6): `sample-keyframes --original-size`; all other stages tell the full size.

Parameters, counted: `500m` 495.0 M and `3.9b` 3,910.9 M, where table 8's sizes give 494.8 and
3,910.6. The networks of the three scalar tokens are among them, and their width was chosen to fit:
four times the patches', as in code that was published of GenAu, makes 499.8 and 3,920.5;
`3.9b-upsampler` 4.06 B, of which 0.15 B are its 147,456 positions. `unet-85m` 83.5 M and
`unet-284m` 272.5 M: how it reads text and rates, and where it looks at time, is not published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.diffusion import self_conditioning
from vidgen.diffusion.prediction import Network
from vidgen.errors import InputError
from vidgen.nn.adm_unet import AdmUNet, AdmUNetConfig
from vidgen.nn.fit import FIT, FITConfig
from vidgen.systems.base import Geometry, ModelFolder, PixelSampler
from vidgen.systems.load import filled, kind_of

# Networks that make samples of text, by the class that their config.json names.
NETWORKS: dict[str, tuple[type, type]] = {
    "FIT": (FIT, FITConfig), "AdmUNet": (AdmUNet, AdmUNetConfig),
}  # fmt: skip
KIND = "FIT"  # what a config that names none is of

_500M = FITConfig()
_3_9B = replace(
    _500M, dim=1024, latents=768, latent_dim=3072, context_dim=1024, head_dim=64,
    latent_head_dim=128,
)  # fmt: skip

# The published networks (table 8).
PAPER = {
    "500m": _500M,
    "3.9b": _3_9B,
    "3.9b-upsampler": replace(
        _3_9B, in_channels=6, height=288, width=512, group=(16, 18, 16), levels=2
    ),
}

# The published networks that it is compared with (table 7).
UNETS = {
    "unet-85m": AdmUNetConfig(),
    "unet-284m": AdmUNetConfig(base=192, multipliers=(1, 2, 3, 4)),
}

# Sizes that two CPU cores train; ours. Latents are those of the shipped model: five keyframes.
WORLD = {
    "latents": FITConfig(
        in_channels=8, out_channels=8, num_frames=5, height=5, width=8, patch=(1, 1, 2),
        group=(5, 5, 1), dim=192, latents=32, latent_dim=192, context_dim=128, text_dim=128,
        blocks=4, global_layers=1, head_dim=32, latent_head_dim=32, dropout=0.0, position_std=0.5,
    ),
    "pixels": FITConfig(
        num_frames=8, height=20, width=32, group=(8, 5, 4), dim=128, latents=64, latent_dim=192,
        context_dim=128, text_dim=128, blocks=4, global_layers=1, local_layers=1, head_dim=32,
        latent_head_dim=32, dropout=0.0,
    ),
}  # fmt: skip
# The second stage behind those pixels: sides twice as long.
WORLD["pixels-upsampler"] = replace(
    WORLD["pixels"], in_channels=6, height=40, width=64, group=(8, 5, 4), levels=2
)

PRESETS = PAPER | {f"world-{name}": config for name, config in WORLD.items()}

SELF_CONDITIONED = 0.9  # of the training samples


UPSAMPLER = "upsampler"  # the component


@dataclass(frozen=True)
class UpsamplerSampler(PixelSampler):
    """How the upsampler is sampled: `sample` in its config.json, beside a `Geometry`."""

    noise_level: float = 0.1  # on the small video, unless the user names one
    max_noise_level: float = 0.5  # the largest that it was trained on


def step(network: FIT) -> self_conditioning.Step:
    """One call of it, with the latent tokens that the call before ended with (§3.4)."""

    def call(
        z: Tensor, t: Tensor, cond: dict[str, Tensor], latents: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        dtype = next(network.parameters()).dtype
        return network(seen(z.to(dtype), cond), t, latents=latents, **told(cond))

    return call


def plain(network: AdmUNet) -> Network:
    """A call of the U-Net, which knows nothing of the call before."""

    def call(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        known = {k: x for k, x in told(cond).items() if k != "size"}
        return network(z.to(next(network.parameters()).dtype), t, **known)

    return call


def called(network: FIT | AdmUNet) -> Network:
    """The network as a run of sampling calls it."""
    if isinstance(network, AdmUNet):
        return plain(network)
    return self_conditioning.Carried(step(network))


def seen(z: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """What a FIT sees on its channels: z, and the small video, enlarged, if there is one."""
    return torch.cat((z, cond["low"].to(z.dtype)), dim=1) if "low" in cond else z


def told(cond: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the conditions that any network gets, those that a FIT takes: text, and the time from
    frame to frame of frames at `times` `b t` (0 of a single frame, or of one that is repeated);
    the size and the noise level where they are there."""
    times = cond["times"]
    period = times.diff(dim=1).mean(dim=1) if times.shape[1] > 1 else times[:, 0] * 0
    given = {"text": cond["text"], "text_mask": cond["text_mask"], "period": period}
    return given | {k: cond[k] for k in ("size", "noise_level") if k in cond}


def enlarged(video: Tensor, height: int, width: int) -> Tensor:
    """`b c t h w` → `b c t height width`, bilinearly, every frame by itself."""
    frames = rearrange(video, "b c t h w -> (b t) c h w")
    frames = F.interpolate(frames, (height, width), mode="bilinear", align_corners=False)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(video))


def low_cond(low: Tensor, noise: Tensor, noise_level: Tensor) -> dict[str, Tensor]:
    """What the upsampler is told of small videos that are enlarged, `b c t h w`: noise, the same
    in unit Gaussian, is added, noise_level `b` times."""
    return {"low": low + noise_level.view(-1, 1, 1, 1, 1) * noise, "noise_level": noise_level}


@torch.no_grad()
def begun_from(base: FIT, config: FITConfig) -> FIT:
    """An upsampler of these sizes that begins with the weights of a base model (§3.5): the base on
    a larger grid, which does not look at the small video yet, and reads one token more, of its
    noise. ValueError, with both, for sizes that must be the same and aren't."""
    same = {k: (getattr(base.config, k), getattr(config, k)) for k in MUST_AGREE}
    for name, (own, asked) in same.items():
        if own != asked:
            raise ValueError(f"{name} is {asked}, and the base's is {own}")
    network, state = FIT(config), {k: x.float() for k, x in base.state_dict().items()}
    weight, volume = torch.zeros_like(network.patch_in.weight), base.patch_in.in_features
    weight[:, :volume] = state["patch_in.weight"]  # values of a patch come channel by channel
    state["patch_in.weight"] = weight
    state["positions"] = _stretched(state["positions"], base.config, config)
    for name, x in network.state_dict().items():
        if name.startswith("level_tokens.1."):
            state[name] = x
    network.load_state_dict(state)
    return network


# What an upsampler has in common with the base that it begins from.
MUST_AGREE = (
    "num_frames", "patch", "dim", "latents", "latent_dim", "context_dim", "text_dim", "blocks",
    "global_layers", "local_layers", "head_dim", "latent_head_dim", "mlp_ratio", "out_channels",
)  # fmt: skip


def _stretched(positions: Tensor, small: FITConfig, large: FITConfig) -> Tensor:
    """Positions of a grid, in the order of its groups, for another grid: between the old ones
    linearly."""
    order = "(gt gh gw pt ph pw) d -> d (gt pt) (gh ph) (gw pw)"
    grid = rearrange(positions, order, **_axes(small))[None]
    grid = F.interpolate(grid, large.grid, mode="trilinear", align_corners=False)[0]
    source, target = order.split(" -> ")
    return rearrange(grid, f"{target} -> {source}", **_axes(large))


def _axes(config: FITConfig) -> dict[str, int]:
    """Patches in a group, and groups, along each axis."""
    sizes: dict[str, int] = {}
    for axis, grid, group in zip("thw", config.grid, config.group, strict=True):
        sizes |= {f"g{axis}": grid // group, f"p{axis}": group}
    return sizes


def load_transformer(folder: ModelFolder) -> FIT | AdmUNet:
    """The network, in the dtype of its weights, on the CPU."""
    return filled(*kind_of(folder, "transformer", NETWORKS, KIND), folder, "transformer")


def reads_size(folder: ModelFolder) -> bool:
    """Whether the network has a token of the size that a clip once had."""
    return kind_of(folder, "transformer", NETWORKS, KIND)[0] is FIT


def load_upsampler(folder: ModelFolder) -> FIT:
    """The second stage, in the same way."""
    return filled(FIT, FITConfig, folder, UPSAMPLER)


def sample_shape(
    folder: ModelFolder, config: FITConfig | AdmUNetConfig
) -> tuple[int, int, int, int]:
    """`c t h w` of what the network makes: latents, or pixels of a model without an autoencoder.
    InputError where that is of a size that it doesn't make, or has other channels."""
    stride = folder.latent_sizes[1]
    require_told(folder, "transformer", config, levels=1)
    return fitting(folder, "transformer", folder.geometry, config, stride)


def require_told(
    folder: ModelFolder, component: str, config: FITConfig | AdmUNetConfig, levels: int
) -> None:
    """InputError unless the network makes the model's channels and is told as many `levels`: 1 of
    what makes samples of text alone, 2 of an upsampler, which sees the small video beside z."""
    channels = folder.latent_sizes[0]
    for key, wanted in (
        ("out_channels", channels), ("in_channels", levels * channels), ("levels", levels)
    ):  # fmt: skip
        if (own := getattr(config, key)) != wanted:
            raise InputError(
                f"{folder.path}/{component}/config.json: {key} is {own}, and of this model's"
                f" {component} it is {wanted}"
            )


def fitting(
    folder: ModelFolder,
    component: str,
    made: Geometry,
    config: FITConfig | AdmUNetConfig,
    stride: int = 1,
) -> tuple[int, int, int, int]:
    """The same of any of its networks that is to make this."""
    rows, columns = made.height // stride, made.width // stride
    if why := config.unfit(made.num_frames, rows, columns):
        raise InputError(
            f"{folder.path}/{component}/config.json: sample is {made.num_frames} frames of"
            f" {rows} × {columns}, and {why}"
        )
    return config.out_channels, made.num_frames, rows, columns
