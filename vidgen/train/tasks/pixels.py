"""What decoders are trained and measured by: the pixels they make against those that are true."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidgen.metrics import fidelity


@dataclass(frozen=True)
class PixelLoss:
    """Weights of the terms beside L1."""

    squared: float = 1.0
    edges: float = 0.5
    changes: float = 0.0  # of the error from a frame to the next: what flickers
    latent_noise: float = 0.05  # spread of the noise on the latents


def pixel_loss(error: Tensor, weights: PixelLoss) -> tuple[Tensor, Tensor]:
    """error `b 3 t h w`, of pixels in −1 … 1 → (the loss, the mean square)."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squared = error.square().mean()
    loss = error.abs().mean() + weights.squared * squared + weights.edges * edges
    if weights.changes and error.shape[2] > 1:
        loss = loss + weights.changes * error.diff(dim=2).abs().mean()
    return loss, squared


def noisy(latents: Tensor, weights: PixelLoss, generator: torch.Generator) -> Tensor:
    """latents `b c t h w` as a model might make them: with errors of the spread that is told."""
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    return latents + weights.latent_noise * noise


def clip_scores(made: Tensor, frames: Tensor) -> dict[str, float]:
    """Mean over frames of their PSNR, dB, and over clips of their flicker, where anything stands
    still, and of how their errors change (`vidgen.metrics.fidelity`); uint8 `b t h w 3`."""
    scores = {"psnr": float(fidelity.psnr(made, frames).mean())}
    if made.shape[1] > 1:
        scores["error_change"] = float(fidelity.error_change(made, frames).mean())
    trembling = fidelity.flicker(made, frames)
    if not trembling.isnan().all():
        scores["flicker"] = float(trembling.nanmean())
    return scores
