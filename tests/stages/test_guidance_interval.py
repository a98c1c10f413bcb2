"""guidance_min_sigma: a model may want guidance at high noise levels alone."""

from __future__ import annotations

import json

import pytest
import torch

from tests import tiny
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import InputError
from vidgen.stages import costs, plan
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.interpolate import Choices as Between
from vidgen.stages.interpolate import interpolate
from vidgen.stages.sample_keyframes import Choices, sample_keyframes
from vidgen.systems import load
from vidgen.systems.base import INTERPOLATIONS, SCHEDULER, ModelFolder, Sampler

PROMPTS = [Prompt("a red ball", id="a", seed=5), Prompt("a blue cube spins", id="b", seed=6)]
CPU = Compute("cpu")
SIGMAS = (1.0, 0.8, 0.5, 0.0)


@pytest.fixture
def model(tmp_path):
    """A model that is guided above that sigma. Its levels are at sigma 1, 0.8 and 0.5."""

    def make(least) -> ModelFolder:
        place = tiny.make(tmp_path / str(least), name="tiny")
        settings = json.loads((place / SCHEDULER).read_text())
        (place / SCHEDULER).write_text(json.dumps(settings | {"guidance_min_sigma": least}))
        return ModelFolder.find(str(place))

    return make


def sampled(folder: ModelFolder, **choices) -> torch.Tensor:
    texts = encode_text(PROMPTS, folder)
    records = sample_keyframes(texts, folder, Choices(**choices), compute=CPU)
    return torch.stack([record.torch("latents") for record in records])


def test_levels_decide(model) -> None:
    everywhere, nowhere = sampled(model(None)), sampled(model(None), guidance_scale=1.0)
    assert not torch.allclose(everywhere, nowhere, atol=1e-2)
    torch.testing.assert_close(sampled(model(0.4)), everywhere)
    torch.testing.assert_close(sampled(model(1.0)), nowhere)
    part = sampled(model(0.6))
    for other in (everywhere, nowhere):
        assert not torch.allclose(part, other, atol=1e-3)


@pytest.mark.parametrize(("least", "calls"), [(None, 6), (0.6, 5), (0.9, 4), (1.0, 3)])
def test_the_plan_counts_both_calls_where_there_is_guidance(model, least, calls) -> None:
    said = plan.sampling(model(least), CPU, 2, Choices())
    assert f"euler, 3 steps, guidance 2: {calls} network calls each" in said


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("least", [None, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_calls_are_those_that_the_solver_makes(solver, least, scale) -> None:
    """Both calls of a guided estimate are one of twice the batch."""
    sampler = Sampler("flow", "flow", solver, 3, scale, guidance_min_sigma=least)
    levels = [Level(*map(torch.tensor, (s, 1 - s, s))) for s in SIGMAS]
    made: list[int] = []
    denoise = load.guided(
        lambda z, level, cond: made.append(len(z)) or z / 2, {"text": torch.zeros(1, 1)},
        sampler, levels,
    )  # fmt: skip
    z, cond = torch.ones(1, 2), {"text": torch.ones(1, 1)}
    list(SOLVERS[solver](denoise, z, levels, cond, Noise([(0, "a")], stage="test")))
    assert costs.calls(sampler, levels, scale) == sum(made)
    plain = costs.calls(sampler, levels, 1.0)
    assert plain == len(costs.evaluations(solver, levels)) == len(made)


@pytest.mark.parametrize(("least", "calls"), [(None, 10), (0.6, 8), (0.9, 6)])
def test_heun_looks_where_it_arrives(model, least, calls) -> None:
    """Without guidance there, if it is at a lower level; and not at the end."""
    said = plan.sampling(model(least), CPU, 2, Choices(solver="heun"))
    assert f"heun, 3 steps, guidance 2: {calls} network calls each" in said


def test_of_interpolation(model) -> None:
    folder = model(None)
    keyframes = list(sample_keyframes(encode_text(PROMPTS, folder), folder, compute=CPU))

    def between(least, **choices) -> torch.Tensor:
        path = folder.path / INTERPOLATIONS["grouped"] / "config.json"
        config = json.loads(path.read_text())
        config["sample"]["guidance_min_sigma"] = least
        path.write_text(json.dumps(config))
        found = interpolate(keyframes, ModelFolder(folder.path), Between(**choices), compute=CPU)
        return torch.stack([record.torch("latents") for record in found])

    assert not torch.allclose(between(None), between(None, guidance_scale=1.0), atol=1e-4)
    torch.testing.assert_close(between(1.0), between(None, guidance_scale=1.0))


def test_a_sigma_that_makes_no_sense(model) -> None:
    with pytest.raises(InputError, match=r"guidance_min_sigma is -1, must be a number above 0"):
        _ = model(-1).sampler
