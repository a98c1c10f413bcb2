"""Schedules: ends, order, published numbers, and the quirks that options stand for."""

import math

import pytest
import torch

from vidgen.diffusion import schedules
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.errors import UsageError


def column(levels, name):
    return torch.stack([getattr(level, name) for level in levels]).double()


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("name", SCHEDULES)
def test_n_steps_are_n_plus_1_levels_noisiest_first_and_clean_last(name, n):
    levels = SCHEDULES[name](n)
    assert len(levels) == n + 1
    ratio = column(levels, "sigma") / column(levels, "alpha")
    assert (ratio[1:] < ratio[:-1]).all()
    assert levels[-1].sigma == 0 and levels[-1].alpha == 1
    for level in levels:
        assert all(x.shape == () and x.dtype == torch.float32 and x.isfinite() for x in level)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_steps_is_an_error(name):
    with pytest.raises(UsageError, match="num_inference_steps is 0"):
        SCHEDULES[name](0)


def test_linear_flow_and_its_shift():
    t = column(schedules.linear_flow(4), "t")
    assert t.tolist() == [1, 0.75, 0.5, 0.25, 0]
    shifted = column(schedules.linear_flow(4, 3.0), "t")
    torch.testing.assert_close(shifted, (3 * t / (1 + 2 * t)).float().double())
    levels = schedules.linear_flow(4, 3.0, t_scale=1000)
    torch.testing.assert_close(column(levels, "t"), 1000 * column(levels, "sigma"))
    torch.testing.assert_close(
        column(levels, "alpha") + column(levels, "sigma"), torch.ones(5).double()
    )


def test_linear_flow_t_max_is_applied_after_the_shift():
    levels = schedules.linear_flow(4, 3.0, t_max=0.99)
    assert float(levels[0].sigma) == pytest.approx(0.99)
    assert levels[1].sigma == schedules.linear_flow(4, 3.0)[1].sigma


def test_wan_spends_the_published_number_of_steps_at_high_noise():
    """Of 50 steps, 34, 39, 43 and 45 lie at t >= 0.6 for shifts 3, 5, 8 and 12."""
    for shift, count in ((3, 34), (5, 39), (8, 43), (12, 45)):
        t = column(schedules.linear_flow(50, shift), "t")
        assert int((t >= 0.6).sum()) == count


@pytest.mark.parametrize("ends", [(1.0, 0.1), (-1.0, 80.0), (0.0, 80.0), (1.0, 1.0)])
def test_karras_refuses_ends_that_are_none(ends):
    for schedule in (schedules.karras, schedules.snap):
        with pytest.raises(UsageError, match=r"noise levels from sigma .* both must be above 0"):
            schedule(4, sigma_min=ends[0], sigma_max=ends[1])


@pytest.mark.parametrize("sigma_in", [0.0, -1.0, float("inf"), float("nan")])
def test_snap_refuses_a_scale_that_is_none(sigma_in):
    with pytest.raises(UsageError, match="must be above 0, and finite"):
        schedules.snap(4, sigma_in=sigma_in)


def test_karras_formula_and_ends():
    sigma = column(schedules.karras(18), "sigma")
    assert float(sigma[0]) == 80 and float(sigma[17]) == pytest.approx(0.002)
    i = 5
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert float(sigma[i]) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(column(schedules.karras(18), "t"), sigma)


def test_cosine_is_a_cosine():
    table = schedules.ddpm_table(schedules.cosine_betas())
    time = (torch.arange(1, 1001).double() / 1000 + 0.008) / 1.008
    expected = torch.cos(time * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    torch.testing.assert_close(table.alpha[:990], expected[:990])
    assert float(table.alpha[-1]) > 0  # the last beta is cut at 0.999


@pytest.mark.parametrize("snr_shift", [1.0, 3.0])
def test_zero_snr_ends_at_pure_noise_and_keeps_the_first_level(snr_shift):
    betas = schedules.scaled_linear_betas()
    plain = schedules.ddpm_table(betas, snr_shift=snr_shift)
    zero = schedules.ddpm_table(betas, zero_snr=True, snr_shift=snr_shift)
    assert float(zero.alpha[-1]) == 0 and float(zero.sigma[-1]) == 1
    torch.testing.assert_close(zero.alpha[0], plain.alpha[0])
    torch.testing.assert_close(zero.alpha**2 + zero.sigma**2, torch.ones(1000).double())


def test_snr_shift_divides_the_snr():
    betas = schedules.scaled_linear_betas()
    plain, shifted = (schedules.ddpm_table(betas, snr_shift=s) for s in (1.0, 3.0))
    ratio = (plain.alpha / plain.sigma) ** 2 / (shifted.alpha / shifted.sigma) ** 2
    torch.testing.assert_close(ratio, torch.full((1000,), 3.0).double())


@pytest.mark.parametrize(
    ("spacing", "options", "expected"),
    [
        ("trailing", {}, [999, 799, 599, 399, 199]),
        ("leading", {}, [800, 600, 400, 200, 0]),
        ("leading", {"steps_offset": 1}, [801, 601, 401, 201, 1]),
        ("linspace", {}, [999, 749, 500, 250, 0]),
        ("leading", {"skip_cleanest": True}, [830, 664, 498, 332, 166]),
        ("linspace", {"skip_cleanest": True}, [999, 799, 599, 400, 200]),
        ("trailing", {"skip_cleanest": True}, [999, 799, 599, 399, 199]),
    ],
)
def test_spacing(spacing, options, expected):
    levels = schedules.ddpm_scaled_linear(5, spacing, **options)
    assert column(levels, "t")[:-1].tolist() == expected
    table = schedules.ddpm_table(schedules.scaled_linear_betas())
    torch.testing.assert_close(column(levels, "alpha")[:-1], table.alpha[expected].float().double())


def test_spacing_errors():
    with pytest.raises(UsageError, match="no spacing `tailing`"):
        schedules.cosine(5, "tailing")
    with pytest.raises(UsageError, match="1001 steps asked"):
        schedules.cosine(1001)
    with pytest.raises(UsageError, match="1000 training timesteps, counting from 1"):
        schedules.cosine(1000, "leading", steps_offset=1)
