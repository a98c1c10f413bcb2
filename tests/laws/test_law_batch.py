"""L5: a batch equals its singles; a stop and a resume equal no stop, to the bit."""

import io
from functools import partial

import pytest
import torch

from vidgen.diffusion import schedules
from vidgen.diffusion.level import expand
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.solvers import SOLVERS, ddim, dpmpp_2m, unipc

SAMPLES = [(7, "a"), (8, "b"), (9, "c"), (10, "d")]
SHAPE = (3, 2, 5, 7)
RUNS = {
    **SOLVERS,
    "ddim eta": partial(ddim, eta=0.7),
    "dpmpp_2m eta": partial(dpmpp_2m, eta=1.0),
    "unipc-1": partial(unipc, order=1),
    "unipc-3": partial(unipc, order=3),
}
LEVELS = {
    "flow": schedules.linear_flow(6, 3.0),
    "karras": schedules.karras(6),
    "zero SNR": schedules.ddpm_scaled_linear(6, zero_snr=True),
}


def bent(z, level, cond):
    """A denoiser that is neither linear nor perfect."""
    alpha, sigma = expand(level.alpha, z), expand(level.sigma, z)
    return torch.tanh(3 * alpha * z / (alpha**2 + sigma**2)) + 0.2 * alpha


def bits(x):
    return x.contiguous().view(torch.int32)


def same(a, b):
    return torch.equal(bits(a), bits(b))


# --- noise ----------------------------------------------------------------------------------------


def test_noise_of_a_batch_is_the_noise_of_its_samples():
    batch = Noise(SAMPLES, "sample-keyframes")
    for k, sample in enumerate(SAMPLES):
        one = Noise([sample], "sample-keyframes")
        assert same(batch.initial(SHAPE)[k], one.initial(SHAPE)[0])
        assert same(batch.step(3, SHAPE)[k], one.step(3, SHAPE)[0])
    shuffled = Noise(SAMPLES[::-1], "sample-keyframes")
    assert same(batch.initial(SHAPE), shuffled.initial(SHAPE).flip(0))


def test_noise_does_not_depend_on_what_was_drawn_before():
    noise = Noise(SAMPLES, "s")
    forward = [noise.initial(SHAPE), *(noise.step(i, SHAPE) for i in range(4))]
    torch.manual_seed(0)
    backward = [*(noise.step(i, SHAPE) for i in (3, 2, 1, 0)), noise.initial(SHAPE)]
    assert all(same(a, b) for a, b in zip(forward, backward[::-1], strict=True))


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Noise(SAMPLES, "s").step(0, SHAPE)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_does_not_depend_on_the_number_of_threads():
    noise, shape, threads = Noise([(1, "a")], "s"), (4, 8, 64, 64), torch.get_num_threads()
    try:
        drawn = []
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            drawn.append(noise.initial(shape))
    finally:
        torch.set_num_threads(threads)
    assert same(drawn[0], drawn[1]) and same(drawn[0], drawn[2])


def test_noise_differs_by_seed_name_stage_and_step():
    draws = [
        Noise([(7, "a")], "s").initial(SHAPE),
        Noise([(8, "a")], "s").initial(SHAPE),
        Noise([(7, "b")], "s").initial(SHAPE),
        Noise([(7, "a")], "t").initial(SHAPE),
        Noise([(7, "a")], "s").step(0, SHAPE),
        Noise([(7, "a")], "s").step(1, SHAPE),
        Noise([(-7, "a")], "s").initial(SHAPE),
    ]
    flat = torch.stack([x.flatten() for x in draws])
    correlation = torch.corrcoef(flat) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 0.25  # 210 numbers: 3.6 standard deviations


def test_noise_is_standard_normal():
    x = Noise(SAMPLES, "s").initial((50_000,))
    assert x.dtype == torch.float32 and x.shape == (4, 50_000)
    assert abs(float(x.mean())) < 0.01 and abs(float(x.var()) - 1) < 0.015
    inside = [float((x.abs() < k).float().mean()) for k in (1, 2, 3)]
    assert inside == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.004)


def test_noise_is_what_it_always_was():
    """Golden: a change here changes every video of every seed, and needs a new ALGORITHM name."""
    found = Noise([(7, "ball")], "sample-keyframes").initial((20,))[0, :4]
    torch.testing.assert_close(found, torch.tensor(GOLDEN), rtol=0, atol=0)


GOLDEN = [-0.188129798, 0.576253533, 2.15141821, -1.10813606]

# --- solvers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("solver", RUNS.values(), ids=RUNS.keys())
def test_resume_at_any_step_equals_no_stop(solver, levels):
    noise = Noise(SAMPLES, "s")
    z = noise.initial(SHAPE) * levels[0].sigma
    whole = list(solver(bent, z, levels, None, noise))
    for stop in range(len(whole) - 1):
        kept = io.BytesIO()  # through a file, and with nothing else of the old run
        torch.save(whole[stop]._replace(level=None)._asdict(), kept)
        kept.seek(0)
        start = whole[stop]._replace(**torch.load(kept, weights_only=True))
        nothing = torch.full_like(z, torch.nan)
        rest = list(solver(bent, nothing, levels, None, Noise(SAMPLES, "s"), start=start))
        assert [step.i for step in rest] == list(range(stop + 1, len(whole)))
        for a, b in zip(rest, whole[stop + 1 :], strict=True):
            assert same(a.z, b.z) and same(a.x0, b.x0) and a.memory.keys() == b.memory.keys()


@pytest.mark.parametrize("solver", RUNS.values(), ids=RUNS.keys())
def test_batch_of_four_equals_four_singles(solver):
    levels = LEVELS["flow"]

    def final(samples):
        noise = Noise(samples, "s")
        *_, step = solver(bent, noise.initial(SHAPE), levels, None, noise)
        return step.z

    singles = torch.cat([final([sample]) for sample in SAMPLES])
    torch.testing.assert_close(final(SAMPLES), singles, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_memory_is_a_few_float32_tensors_of_the_shape_of_z(name):
    noise = Noise(SAMPLES, "s")
    for step in SOLVERS[name](bent, noise.initial(SHAPE), LEVELS["flow"], None, noise):
        assert len(step.memory) <= 2
        for x in (step.z, step.x0, *step.memory.values()):
            assert x.shape == (4, *SHAPE) and x.dtype == torch.float32
