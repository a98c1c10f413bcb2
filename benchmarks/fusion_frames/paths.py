"""Where an object is in the frames of a clip, found by its color, and where it is in truth.

The rendered clip tells which pixels are the object's, the ground's and the sky's. Each of the three
is a Gaussian of its colors; in the clip to be measured, a pixel counts as far as it is likely to be
the object's, and the object is where the mean of those pixels is.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

OBJECT = 1  # the owner's number; a clip of one object
SEEN = 4  # pixels of the object, from which a frame counts
GRAIN = 6.0  # levels: no color is surer than that


def path_error(made: Tensor, true: Tensor, owner: Tensor) -> float:
    """Mean distance of the object from where it is in truth, pixels. made, true: uint8 `t h w 3`;
    owner `t h w` of the true clip. An object that is lost counts as in the middle of the picture.
    NaN where truth shows the object in no frame."""
    chance = likelihood(made, true, owner)
    seen = (owner == OBJECT).sum(dim=(1, 2)) >= SEEN
    apart = (centers(chance) - centers((owner == OBJECT).double())).norm(dim=-1)
    return float(apart[seen].mean()) if seen.any() else float("nan")


def likelihood(made: Tensor, true: Tensor, owner: Tensor) -> Tensor:
    """How likely each pixel is the object's, `t h w`."""
    owners = [n for n in owner.unique().tolist() if int((owner == n).sum()) >= SEEN]
    if OBJECT not in owners:
        return torch.zeros(made.shape[:3], dtype=torch.float64)
    colors, x = true.double(), rearrange(made.double(), "t h w c -> (t h w) c")
    scores = []
    for n in owners:
        own = colors[owner == n]
        spread = own.T.cov(correction=0) + GRAIN**2 * torch.eye(3, dtype=torch.float64)
        gaussian = torch.distributions.MultivariateNormal(own.mean(dim=0), spread)
        scores.append(gaussian.log_prob(x) + torch.tensor(len(own)).log())
    chance = torch.stack(scores).softmax(dim=0)[owners.index(OBJECT)]
    return chance.view(made.shape[:3])


def centers(weight: Tensor) -> Tensor:
    """`t h w` → the weighted mean place, `t 2`: column and row, pixels."""
    _, h, w = weight.shape
    weight = weight + 1e-6 / (h * w)
    weight = weight / weight.sum(dim=(1, 2), keepdim=True)
    columns = (weight.sum(dim=1) * (torch.arange(w) + 0.5)).sum(dim=-1)
    rows = (weight.sum(dim=2) * (torch.arange(h) + 0.5)).sum(dim=-1)
    return torch.stack((columns, rows), dim=-1)
