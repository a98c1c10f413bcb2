"""L3: a scale of 1 is the identity and costs nothing; every guidance against its closed form."""

import math

import pytest
import torch

from vidgen.diffusion import schedules
from vidgen.diffusion.cond import cat, select
from vidgen.diffusion.guidance import (
    autoguide,
    cfg,
    contrast,
    dynamic_cfg,
    dynamic_threshold,
    only_between,
    oscillating_cfg,
    reconstruction,
    rescale,
    separate,
)
from vidgen.diffusion.level import Level, expand
from vidgen.diffusion.solvers import euler, heun
from vidgen.errors import UsageError

B, SHAPE = 3, (2, 3, 4, 4)
LEVEL = Level(torch.full((B,), 0.6), torch.full((B,), 0.4), torch.full((B,), 0.6))


def z():
    return torch.randn(B, *SHAPE, generator=torch.Generator().manual_seed(1))


def given(text, camera=0.0):
    return {
        "text": torch.full((B, 1), text),
        "camera": torch.full((B, 1), camera),
        "reference": None,
    }


class Toy:
    """x0 = 0.3 z + 2 text + 5 camera + text * camera; counts calls and the samples in them."""

    def __init__(self):
        self.batches = []

    def __call__(self, z, level, cond):
        self.batches.append(len(z))
        assert len(level.t) == len(z) and cond["reference"] is None
        text, camera = (expand(cond[k][:, 0], z) for k in ("text", "camera"))
        return 0.3 * z + 2 * text + 5 * camera + text * camera


def x0_of(text, camera=0.0):
    return 0.3 * z() + 2 * text + 5 * camera + text * camera


# --- L3 -------------------------------------------------------------------------------------------


def test_scale_1_is_the_denoiser_itself():
    toy, weak = Toy(), Toy()
    assert cfg(toy, given(0.0), 1.0) is toy
    assert separate(toy, (given(0.0), 1.0), (given(0.0, 0.0), 1.0)) is toy
    assert autoguide(toy, weak, 1.0) is toy
    assert contrast(toy, []) is toy


@pytest.mark.parametrize(("batched", "batches"), [(True, [2 * B]), (False, [B, B])])
def test_cfg_closed_form_and_calls(batched, batches):
    toy = Toy()
    found = cfg(toy, given(-1.0), 6.0, batched=batched)(z(), LEVEL, given(0.5))
    u, c = x0_of(-1.0), x0_of(0.5)
    torch.testing.assert_close(found, u + 6 * (c - u))
    assert toy.batches == batches


def test_cfg_of_equal_branches_changes_no_bit():
    toy = Toy()
    found = cfg(toy, given(0.5), 7.5)(z(), LEVEL, given(0.5))
    assert torch.equal(found, toy(z(), LEVEL, given(0.5)))


def test_cfg_scale_0_is_the_unconditional_denoiser():
    found = cfg(Toy(), given(-1.0), 0.0)(z(), LEVEL, given(0.5))
    torch.testing.assert_close(found, x0_of(-1.0))


def test_guidance_takes_a_level_without_a_batch_axis():
    scalar = Level(*(x[0] for x in LEVEL))
    guided = cfg(Toy(), given(-1.0), 6.0)
    assert torch.equal(guided(z(), scalar, given(0.5)), guided(z(), LEVEL, given(0.5)))


# --- several conditions ---------------------------------------------------------------------------


def test_separate_is_the_formula_of_ac3d():
    toy, w_text, w_camera = Toy(), 5.0, 3.0
    guided = separate(toy, (given(0.0, 2.0), 1 + w_text), (given(1.0, 0.0), 1 + w_camera))
    found = guided(z(), LEVEL, given(1.0, 2.0))
    expected = (1 + w_text + w_camera) * x0_of(1.0, 2.0)
    expected = expected - w_text * x0_of(0.0, 2.0) - w_camera * x0_of(1.0, 0.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert toy.batches == [3 * B]


def test_separate_drops_a_condition_whose_scale_is_1():
    toy = Toy()
    found = separate(toy, (given(0.0, 2.0), 6.0), (given(1.0, 0.0), 1.0))(
        z(), LEVEL, given(1.0, 2.0)
    )
    torch.testing.assert_close(found, cfg(Toy(), given(0.0, 2.0), 6.0)(z(), LEVEL, given(1.0, 2.0)))
    assert toy.batches == [2 * B]


def test_contrast_holds_the_two_scale_form_of_fusion_frames():
    w_image, w_text = 2.0, 5.0
    u, image, full = given(0.0, 0.0), given(0.0, 1.0), given(1.0, 1.0)
    found = contrast(Toy(), [(image, w_text - w_image), (u, w_image - 1)])(z(), LEVEL, full)
    expected = (1 - w_image) * x0_of(0.0) + (w_image - w_text) * x0_of(0.0, 1.0)
    expected = expected + w_text * x0_of(1.0, 1.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# --- scales that depend on the level --------------------------------------------------------------


def test_dynamic_cfg_is_cogvideox_formula_with_its_integer_timesteps():
    n, scale = 50, 6.0
    levels = schedules.ddpm_scaled_linear(n, zero_snr=True)
    guided = dynamic_cfg(Toy(), given(-1.0), scale, n)
    u, c = x0_of(-1.0), x0_of(0.5)
    seen = set()
    for level in levels[:-1]:
        t = int(level.t)
        s = 1 + scale * ((1 - math.cos(math.pi * ((n - t) / n) ** 5.0)) / 2)
        seen.add(round(s, 3))
        torch.testing.assert_close(guided(z(), level.on(z()), given(0.5)), u + s * (c - u))
    assert len(seen) > 10


def test_only_between():
    plain, guided = Toy(), cfg(Toy(), given(-1.0), 6.0)
    part = only_between(guided, plain, 0.3, 0.6)
    full = given(0.5)
    for sigma, inside in ((0.29, False), (0.3, False), (0.31, True), (0.6, True), (0.61, False)):
        level = LEVEL._replace(sigma=torch.full((B,), sigma))
        expected = (guided if inside else plain)(z(), level, full)
        assert torch.equal(part(z(), level, full), expected)
    mixed = part(z(), LEVEL._replace(sigma=torch.tensor([0.2, 0.5, 0.9])), full)
    assert torch.equal(mixed[[0, 2]], plain(z(), LEVEL, full)[[0, 2]])
    assert torch.equal(mixed[1], guided(z(), LEVEL, full)[1])


def test_only_between_asks_only_the_one_it_needs():
    plain, guided = Toy(), Toy()
    part = only_between(guided, plain, 0.3, 0.6)
    part(z(), LEVEL, given(0.5))
    assert (len(guided.batches), len(plain.batches)) == (1, 0)


def test_oscillating_cfg_holds_then_alternates_and_resumes():
    found = []

    def listening(z, level, cond):
        found.append(len(z))
        return torch.cat([x.expand(1, *SHAPE) for x in cond["text"][:, 0]])

    levels = schedules.linear_flow(7, 3.0)
    # The text is 1 and 0: the estimate is the scale.
    guided = oscillating_cfg(listening, given(0.0), 6.0, 1.0, levels, 3)
    scales = [6.0] * 3 + [1.0, 6.0, 1.0, 6.0]
    for level, scale in zip(levels[:-1], scales, strict=True):
        assert (guided(z(), level.on(z()), given(1.0)) == scale).all()
    assert set(found) == {2 * B}  # at a scale of 1, too: carried latents keep their batch
    steps = list(euler(guided, z(), levels, given(1.0)))
    (*_, last) = euler(guided, z(), levels, given(1.0), start=steps[3])
    assert torch.equal(last.z, steps[-1].z)


def test_the_two_calls_of_a_step_of_heuns_have_one_scale():
    levels, found = schedules.karras(6, 0.1, 10.0), []

    def listening(z, level, cond):
        found.append(float(level.sigma[0]))
        return torch.cat([x.expand(1, *SHAPE) for x in cond["text"][:, 0]])

    def at(z, level, cond):
        x0 = guided(z, level, cond)
        scales.append(float(x0.flatten()[0]))  # the text is 1 and 0: the estimate is the scale
        return x0

    for hold, expected in ((3, [6, 6, 6, 1, 6, 1]), (1, [6, 1, 6, 1, 6, 1])):
        scales: list[float] = []
        guided = oscillating_cfg(
            listening, given(0.0), 6.0, 1.0, levels, hold, looks_ahead=True
        )  # fmt: skip
        steps = list(heun(at, z(), levels, given(1.0)))
        twice = [float(x) for x in expected for _ in range(2)][:-1]  # the last step is Euler's
        assert scales == twice
        scales.clear()
        list(heun(at, z(), levels, given(1.0), start=steps[1]))  # gone on from, and by the same
        assert scales == twice[4:]
    assert found[:4] == [float(levels[i].sigma) for i in (0, 1, 1, 2)]


# --- what is done to x0 ---------------------------------------------------------------------------


def test_autoguide():
    def weak(z, level, cond):
        return torch.ones_like(z)

    found = autoguide(Toy(), weak, 2.5)(z(), LEVEL, given(0.5))
    torch.testing.assert_close(found, 1 + 2.5 * (x0_of(0.5) - 1))


def test_rescale_moves_each_samples_spread():
    x = z() * torch.tensor([1.0, 4.0, 9.0])[:, None, None, None, None]
    like = z().flip(0)
    spread = (1, 2, 3, 4)
    torch.testing.assert_close(rescale(x, like, 1.0).std(spread), like.std(spread))
    torch.testing.assert_close(rescale(x, like, 0.0), x)
    torch.testing.assert_close(
        rescale(x, like, 0.7),
        0.7 * x * (like.std(spread) / x.std(spread))[:, None, None, None, None] + 0.3 * x,
    )


def test_cfg_rescaled_has_the_spread_of_the_conditional_branch():
    def steep(z, level, cond):
        return z * (1 + expand(cond["text"][:, 0], z))

    found = cfg(steep, given(0.0), 9.0, rescaled=1.0)(z(), LEVEL, given(1.0))
    torch.testing.assert_close(found, 2 * z())


def test_dynamic_threshold_is_imagens():
    calm = torch.linspace(-0.9, 0.9, 96).view(1, *SHAPE)
    wild = 4 * calm
    x = torch.cat([calm, wild, wild.flip(1)])
    found = dynamic_threshold(lambda z, level, cond: x, 0.9)(z(), LEVEL, None)
    assert torch.equal(found[0], x[0])  # within the limit: nothing happens
    s = torch.quantile(x.abs().flatten(1), 0.9, dim=1).clamp(min=1)
    expected = torch.stack([x[k].clamp(-s[k], s[k]) / s[k] for k in range(3)])
    torch.testing.assert_close(found, expected)
    assert float(found[1].abs().max()) == 1


def test_dynamic_threshold_counts_and_clips_new_frames_alone():
    """One of three is new, and beyond the limit: of all numbers the percentile is within it."""
    x = torch.linspace(-0.9, 0.9, 16).view(1, 1, 1, 4, 4).repeat(2, *SHAPE[:2], 1, 1)
    x[1, :, 2] *= 4
    known = torch.tensor([True, True, False]).view(1, 1, 3, 1, 1)
    found = dynamic_threshold(lambda z, level, cond: x, 0.6, known=known)(z(), LEVEL, None)
    assert torch.equal(found[0], x[0]) and torch.equal(found[:, :, :2], x[:, :, :2])
    new = x[1, :, 2]
    s = torch.quantile(new.abs(), 0.6)
    torch.testing.assert_close(found[1, :, 2], new.clamp(-s, s) / s)
    blind = dynamic_threshold(lambda z, level, cond: x, 0.6)(z(), LEVEL, None)
    assert torch.equal(blind, x.clamp(-1, 1)) and s > 2  # as if s were 1: flat, where x is beyond


def test_reconstruction_closed_form_for_a_linear_denoiser():
    """x0 = A z: the gradient of |known - (A z)|^2 over the known part is -2 A^T (known - A z)."""
    n = math.prod(SHAPE)
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(2)) / n**0.5

    def linear(z, level, cond):
        return (z.flatten(1) @ a.T).view_as(z)

    known = torch.ones(B, *SHAPE)
    mask = torch.zeros(1, 1, SHAPE[1], 1, 1, dtype=torch.bool)
    mask[:, :, 0] = True  # the first frame
    with torch.no_grad():  # as inside a solver
        found = reconstruction(linear, known, mask, 1.5)(z(), LEVEL, None)
    x0 = linear(z(), LEVEL, None)
    residual = torch.where(mask, known - x0, 0).flatten(1)
    expected = x0 + 1.5 * 0.4 * (residual @ a).view_as(x0)
    torch.testing.assert_close(found, torch.where(mask, known, expected), rtol=1e-4, atol=1e-5)
    assert not found.requires_grad


def test_reconstruction_pulls_the_rest_towards_the_known_part():
    """Two frames that are always equal: knowing one must move the other."""

    def equal_frames(z, level, cond):
        return z.mean(dim=2, keepdim=True).expand_as(z)

    levels = schedules.karras(40, 0.02, 10.0)
    start = torch.randn(1, 1, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 10
    known = torch.full_like(start, 3.0)
    mask = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
    distance = []
    for weight in (0.0, 1.0):
        *_, step = euler(reconstruction(equal_frames, known, mask, weight), start, levels, None)
        assert torch.equal(step.z[:, :, 0], known[:, :, 0])
        distance.append(float((step.z[:, :, 1] - 3).abs().mean()))
    assert distance[1] < distance[0] / 2


# --- conditions -----------------------------------------------------------------------------------


def test_cat_and_select():
    a, b = given(1.0), given(2.0, 3.0)
    both = cat(a, b)
    assert both["text"].shape == (2 * B, 1) and both["reference"] is None
    back = select(both, slice(B, None))
    assert torch.equal(back["text"], b["text"]) and torch.equal(back["camera"], b["camera"])


@pytest.mark.parametrize(
    "other",
    [
        {"text": torch.zeros(B, 2), "camera": torch.zeros(B, 1), "reference": None},
        {"text": None, "camera": torch.zeros(B, 1), "reference": None},
        {"text": torch.zeros(B, 1), "reference": None},
        {**given(0.0), "more": None},
    ],
    ids=["another length", "none", "a name missing", "a name too many"],
)
def test_conditions_that_cannot_share_a_batch_say_so(other):
    with pytest.raises(UsageError, match="cannot share a batch") as caught:
        cfg(Toy(), other, 2.0)(z(), LEVEL, given(0.5))
    assert "batched=False" in caught.value.next
