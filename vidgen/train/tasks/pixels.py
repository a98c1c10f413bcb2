"""What decoders are trained and measured by: the pixels they make against those that are true."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PixelLoss:
    """Weights of the terms beside L1."""

    squared: float = 1.0
    edges: float = 0.5
    latent_noise: float = 0.05  # spread of the noise on the latents


def pixel_loss(error: Tensor, weights: PixelLoss) -> tuple[Tensor, Tensor]:
    """error `b 3 t h w`, of pixels in −1 … 1 → (the loss, the mean square)."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squared = error.square().mean()
    return error.abs().mean() + weights.squared * squared + weights.edges * edges, squared


def psnr(made: Tensor, frames: Tensor) -> float:
    """Mean over clips of 10·log10(255² / mean square), in dB; uint8 `b t h w 3`."""
    squared = (frames.float() - made.float()).square().mean(dim=(1, 2, 3, 4))
    return float((10 * (255**2 / squared.clamp(min=1e-6)).log10()).mean())


def flicker(made: Tensor, frames: Tensor) -> float | None:
    """How much pixels change over time that stand still in truth: their standard deviation over
    time, in levels of 0 … 255, the mean over all such pixels and channels. None where nothing
    stands still. uint8 `b t h w 3`."""
    still = (frames == frames[:, :1]).all(dim=1).all(dim=-1)  # b h w
    if not still.any():
        return None
    spread = made.float().std(dim=1, correction=0).mean(dim=-1)
    return float(spread[still].mean())


def clip_scores(made: Tensor, frames: Tensor) -> dict[str, float]:
    """Both measures of clips, by name."""
    found = {"psnr": psnr(made, frames), "flicker": flicker(made, frames)}
    return {name: value for name, value in found.items() if value is not None}
