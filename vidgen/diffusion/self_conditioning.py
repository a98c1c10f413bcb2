"""Latent self-conditioning: a network begins where its call before ended.

The tokens that a call ends with are given to the next one, at a lower noise level; a run of
sampling becomes as deep as all of its calls together. In training a part of the samples is seen
twice at one level, the second time with the tokens of the first, through which no gradient goes
(RIN, Jabri et al. 2022, arXiv 2212.11972, §3; Snap Video, §3.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vidgen.diffusion.cond import select
from vidgen.diffusion.prediction import Network

# z, t, cond, the tokens of the call before or None → the output, and the tokens it ends with.
Step: TypeAlias = Callable[[Tensor, Tensor, Any, Tensor | None], tuple[Tensor, Tensor]]


class Carried:
    """A network as a run of sampling calls it. The calls of a run have one batch, in one order.

    Guidance may end in a run (`guidance.only_between`): a call of half as many samples goes on from
    the first half of the call before, where `guidance.branches` has those of the condition itself.
    A call of a batch of another size begins anew.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.latents: Tensor | None = None

    def __call__(self, z: Tensor, t: Tensor, cond: Any) -> Tensor:
        before = self.latents
        if before is not None and len(before) == 2 * len(z):
            before = before[: len(z)]
        if before is not None and len(before) != len(z):
            before = None
        out, latents = self.step(z, t, cond, before)
        self.latents = latents.detach()  # guidance may want a gradient, but not of calls before
        return out


def trained(step: Step, share: float, generator: torch.Generator) -> Network:
    """A network as training calls it: samples are seen twice with probability `share`. Tokens of
    the others are zeros, which a network must take as none.

    Each call with a share is two of the network's, whatever is drawn: processes that shard its
    weights gather them together.
    """

    def raw(z: Tensor, t: Tensor, cond: Any) -> Tensor:
        if share == 0:
            return step(z, t, cond, None)[0]
        drawn = torch.rand(len(z), generator=generator, device=z.device) < share
        # One sample, for nothing, where none is drawn.
        looked = drawn if drawn.any() else torch.arange(len(z), device=z.device) == 0
        with torch.no_grad():
            _, found = step(z[looked], t[looked], select(cond, looked), None)
        latents = found.new_zeros(len(z), *found.shape[1:])
        latents[looked] = found
        latents[~drawn] = 0
        return step(z, t, cond, latents)[0]

    return raw
