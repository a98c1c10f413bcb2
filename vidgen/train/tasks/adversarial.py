"""An adversarial term beside a decoder's loss on pixels: what is likely, where the mean is blurred.

The discriminator learns by the hinge loss (Lim and Ye 2017), in the same step as the decoder, which
is given its gradient scaled against that of the loss on pixels (VQGAN, Esser et al. 2021, Eq. 7, at
the pixels instead of the last layer).
"""

from __future__ import annotations

from torch import Tensor, autograd, nn
from torch.func import functional_call


def adversarial(
    discriminator: nn.Module,
    made: Tensor,
    true: Tensor,
    latents: Tensor,
    loss: Tensor,
    weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The terms to add to `loss`, and scalars to log.

    made, true   `b 3 t h w`, made with a gradient
    latents      `b c t h w` that `made` was decoded from
    loss         on the pixels of `made`
    weight       the length of the discriminator's gradient on the pixels, over that of `loss`; at 0
                 the discriminator learns alone
    """
    fake, real = discriminator(made.detach(), latents), discriminator(true, latents)
    terms = (1 + fake).relu().mean() + (1 - real).relu().mean()
    told = {"d_fake": fake.detach().mean(), "d_real": real.detach().mean()}
    if weight == 0:
        return terms, told
    held = {name: p.detach() for name, p in discriminator.named_parameters()}
    fooled = -functional_call(discriminator, held, (made, latents)).mean()
    (own,) = autograd.grad(loss, made, retain_graph=True)
    (its,) = autograd.grad(fooled, made, retain_graph=True)
    scale = weight * own.norm() / its.norm().clamp(min=1e-12)
    return terms + scale.detach() * fooled, told
