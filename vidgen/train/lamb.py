"""LAMB (You et al. 2020, arXiv 1904.00962): Adam with a rate of its own for each tensor.

In the form that Snap's public training code has it: no bias correction, decoupled weight decay in
the update, the norm of the weights cut at 10, and no exception for norms and biases.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

LARGEST_NORM = 10.0  # of the weights, in the trust ratio


class Lamb(torch.optim.Optimizer):
    """w ← w − lr · min(‖w‖, 10) / ‖u‖ · u with u = m / (√v + eps) + weight_decay · w, where m and v
    are running means of the gradient and its square. Where w or u is 0 the ratio is 1, so that
    gains which start at zero can move. Not for sharded parameters: norms are of whole tensors.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                mean = state.setdefault("exp_avg", torch.zeros_like(p))
                square = state.setdefault("exp_avg_sq", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - beta1)
                square.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                update = mean / square.sqrt().add_(group["eps"])
                update.add_(p, alpha=group["weight_decay"])
                size, own = update.norm(), p.norm().clamp(max=LARGEST_NORM)
                ratio = torch.where((size > 0) & (own > 0), own / size, torch.ones_like(size))
                p.sub_(update.mul_(ratio), alpha=group["lr"])
