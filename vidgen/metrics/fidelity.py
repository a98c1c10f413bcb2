"""Frames against the true ones, pixel by pixel: for decoders, upsampling and interpolation, where
the truth is known. All take two clips of one shape, uint8 `b t h w 3`, in levels of 0 … 255.

    psnr          dB per frame, higher is better
    ssim          −1 … 1 per frame, higher is better
    flicker       levels per clip, lower is better: what trembles where the truth stands still
    error_change  levels per clip, lower is better: the same for what moves, too
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

LEVELS = 255.0
WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03
BAND = 2**16  # pixels of a picture that its windows are summed over together


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame, 10·log10(255² / mean square over pixels and
    channels), dB: `b t`; inf where nothing differs. The mean of frames' dB is what papers print;
    tools that pool squares over a clip first print less."""
    check_pair(made, true)
    squared = (made.double() - true.double()).square().mean(dim=(2, 3, 4))
    return 10 * (LEVELS**2 / squared).log10()


def ssim(made: Tensor, true: Tensor) -> Tensor:
    """Structural similarity of each frame, `b t` (Wang et al. 2004, IEEE TIP 13(4), Eq. 13): a
    Gaussian window of 11 pixels and sigma 1.5, covariances over the whole population, places where
    the window fits, each channel by itself, the mean of all. ValueError for smaller frames.

    As scikit-image computes it with gaussian_weights, sigma=1.5, use_sample_covariance=False and
    data_range=255, which are not its defaults.
    """
    check_pair(made, true)
    if min(made.shape[2:4]) < WINDOW:
        raise ValueError(f"frames of {made.shape[2]} × {made.shape[3]}, the window has {WINDOW}")
    # Differences of large squares: float32 would leave four digits.
    x, y = (rearrange(v.double(), "b t h w c -> (b t c) h w") for v in (made, true))
    whole, _ = similarity(x, y)
    return rearrange(whole, "(b t c) -> b t c", b=made.shape[0], c=3).mean(dim=-1)


def similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of pictures `n h w` in float64, the means over places where the window fits, `n` each: of
    luminance times contrast times structure, and without luminance (Wang et al. 2004, Eq. 6, and
    Eq. 9 times 10 with C3 = C2 / 2).

    A picture and a band of it at a time: what is summed then stays in the processor's cache.
    """
    n, h, w = x.shape
    places = h - WINDOW + 1
    rows = max(8, BAND // w) if x.device.type == "cpu" else places
    whole, structure = (torch.zeros(n, dtype=x.dtype, device=x.device) for _ in range(2))
    for i in range(n):
        for top in range(0, places, rows):
            band = slice(top, min(top + rows, places) + WINDOW - 1)
            luminance, rest = _similarity(x[i, band], y[i, band])
            whole[i] += (luminance * rest).sum()
            structure[i] += rest.sum()
    count = places * (w - WINDOW + 1)
    return whole / count, structure / count


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and the rest, of each place of `h w` where the window fits."""
    mean_x, mean_y, squares, product = _windowed(torch.stack([x, y, (x * x).addcmul_(y, y), x * y]))
    both, each = mean_x * mean_y, (mean_x * mean_x).addcmul_(mean_y, mean_y)
    c1, c2 = (K1 * LEVELS) ** 2, (K2 * LEVELS) ** 2
    return (2 * both + c1) / (each + c1), (2 * (product - both) + c2) / (squares - each + c2)


def flicker(made: Tensor, true: Tensor) -> Tensor:
    """How much pixels change over time that stand still in truth, to the level: their standard
    deviation over time, the mean over those pixels and channels, `b`. NaN for a clip where nothing
    stands still."""
    check_pair(made, true)
    still = (true == true[:, :1]).all(dim=1).all(dim=-1).double()  # b h w
    spread = made.double().std(dim=1, correction=0).mean(dim=-1)
    return (spread * still).sum(dim=(1, 2)) / still.sum(dim=(1, 2))


def error_change(made: Tensor, true: Tensor) -> Tensor:
    """How much the error (made − true) changes from a frame to the next: the mean of its absolute
    change over pixels, channels and neighbors, `b`. 0 for an error that stays. The clip needs two
    frames."""
    check_pair(made, true)
    if made.shape[1] < 2:
        raise ValueError("one frame changes into no other")
    return (made.double() - true.double()).diff(dim=1).abs().mean(dim=(1, 2, 3, 4))


def _windowed(x: Tensor) -> Tensor:
    """`n h w` → its Gaussian mean around each place where the window fits. A sum of shifted
    pictures: a sixth of the time of torch's convolution in float64."""
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weight = torch.exp(-0.5 * (at / SIGMA) ** 2)
    weights = (weight / weight.sum()).tolist()
    for axis in (1, 2):
        length = x.shape[axis] - WINDOW + 1
        total = x.narrow(axis, 0, length) * weights[0]
        for i in range(1, WINDOW):
            total.add_(x.narrow(axis, i, length), alpha=weights[i])
        x = total
    return x


def check_pair(made: Tensor, true: Tensor) -> None:
    """ValueError unless both are clips of one shape."""
    for x in (made, true):
        if x.dtype != torch.uint8 or x.ndim != 5 or x.shape[-1] != 3:
            raise ValueError(f"{x.dtype} {list(x.shape)}, not uint8 [b, t, h, w, 3]")
    if made.shape != true.shape:
        raise ValueError(f"clips of {list(made.shape)} and {list(true.shape)}")
