"""The discriminator of patches, and the terms that it adds to a decoder's loss."""

from __future__ import annotations

import pytest
import torch

from vidgen.errors import UsageError
from vidgen.nn.discriminator import PatchDiscriminator
from vidgen.train.recipe import load_recipe
from vidgen.train.task import make_task
from vidgen.train.tasks.adversarial import adversarial


@pytest.fixture
def clips() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    true, latents = torch.rand(2, 3, 3, 32, 48) * 2 - 1, torch.randn(2, 4, 3, 4, 6)
    return (0.5 * true).requires_grad_(), true, latents


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_logit_for_each_latent(stride) -> None:
    network = PatchDiscriminator(4, stride, width=8)
    logits = network(torch.randn(2, 3, 3, 4 * stride, 6 * stride), torch.randn(2, 4, 3, 4, 6))
    assert logits.shape == (2, 3, 4, 6)


def test_what_a_logit_sees(clips) -> None:
    """By its convolutions, 54 pixels across, as its page says, and the latents."""
    network = PatchDiscriminator(2, 8, width=4)
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.GroupNorm)):
        norm.forward = lambda x: x  # a norm's statistics are of the whole frame
    frames = torch.randn(1, 3, 1, 96, 96, requires_grad=True)
    latents = torch.randn(1, 2, 1, 12, 12, requires_grad=True)
    network(frames, latents)[0, 0, 6, 6].backward()
    rows = frames.grad.abs().sum((0, 1, 2, 4)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 54
    assert int((latents.grad.abs().sum((0, 1, 2, 4)) > 0).sum()) == 5


def test_the_decoder_gets_the_share_that_is_told_and_the_discriminator_the_hinge_loss(
    clips,
) -> None:
    made, true, latents = clips
    network = PatchDiscriminator(4, 8, width=8)
    loss = (made - true).square().mean()
    (own,) = torch.autograd.grad(loss, made, retain_graph=True)
    more, told = adversarial(network, made, true, latents, loss, 0.3)
    (its,) = torch.autograd.grad(more, made, retain_graph=True)
    torch.testing.assert_close(its.norm(), 0.3 * own.norm())
    more.backward()
    got = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    fake, real = network(made.detach(), latents), network(true, latents)
    ((1 + fake).relu().mean() + (1 - real).relu().mean()).backward()
    for name, p in network.named_parameters():
        torch.testing.assert_close(got[name], p.grad)
    torch.testing.assert_close(told["d_fake"], fake.mean().detach())


def test_the_decoder_is_moved_towards_what_the_discriminator_takes_for_true(clips) -> None:
    made, true, latents = clips
    network = PatchDiscriminator(4, 8, width=8)
    more, _ = adversarial(network, made, true, latents, (made - true).square().mean(), 1.0)
    (gradient,) = torch.autograd.grad(more, made)
    before = network(made, latents).mean()
    assert network(made - 0.1 * gradient / gradient.norm(), latents).mean() > before


def test_at_no_weight_the_discriminator_learns_alone(clips) -> None:
    made, true, latents = clips
    network = PatchDiscriminator(4, 8, width=8)
    more, _ = adversarial(network, made, true, latents, made.mean(), 0.0)
    more.backward()
    assert made.grad is None
    assert all(p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)


def test_of_a_video_decoder() -> None:
    """The discriminator begins first; it is neither there nor counted where nothing asks for it."""
    recipe = load_recipe(
        "world-video-decoder", preset="tiny",
        overrides=["loss.adversarial=0.5", "loss.adversarial_after=2", "batch_size=2"],
    )  # fmt: skip
    task = make_task(recipe)
    modules = task.build()
    own = [p for p in modules["video_decoder"].parameters() if p.requires_grad]
    plain = make_task(load_recipe("world-video-decoder", preset="tiny", overrides=["batch_size=2"]))
    assert set(modules) - set(plain.build()) == {"discriminator"}

    def gradient(task, step: int) -> torch.Tensor:
        for p in own:
            p.grad = None
        loss, told = task.loss(modules, task.batch(step, 0, 1), torch.Generator().manual_seed(0))
        loss.backward()
        assert ("d_real" in told) == (task is not plain)
        return torch.cat([p.grad.flatten() for p in own])

    torch.testing.assert_close(gradient(task, 1), gradient(plain, 1))
    assert not torch.allclose(gradient(task, 2), gradient(plain, 2), rtol=0.05)


def test_sharded_weights_cannot_be_held_still() -> None:
    given = ["loss.adversarial=0.5", "parallel=fsdp"]
    for some in ([given[0]], [given[1]]):
        make_task(load_recipe("world-video-decoder", preset="tiny", overrides=some))
    with pytest.raises(UsageError, match=r"loss\.adversarial with parallel: fsdp") as told:
        make_task(load_recipe("world-video-decoder", preset="tiny", overrides=given))
    assert told.value.next == "parallel: ddp"


@pytest.mark.parametrize("given", ["loss.adversarial=-1", "loss.adversarial_after=-1"])
def test_settings_that_make_no_sense(given) -> None:
    with pytest.raises(UsageError, match=r"recipe: loss.adversarial.* is -1, must be 0 or more"):
        make_task(load_recipe("world-video-decoder", preset="tiny", overrides=[given]))
