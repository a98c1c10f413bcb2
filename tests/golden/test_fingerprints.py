"""Golden fingerprints: what each part computes, small enough to read in a diff.

A fingerprint is shape, mean, spread and four values of a tensor made on the CPU from a fixed seed.
`make golden` rewrites them (the old file stays beside it as .old): do that only when numbers were
meant to change, and say so under "Numbers changed" in the changelog.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from vidgen.diffusion.guidance import cfg
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, denoiser
from vidgen.diffusion.schedules import linear_flow
from vidgen.diffusion.solvers import SOLVERS
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.world.render import render
from vidgen.world.scene import sample_scene

FILE = Path(__file__).with_name("fingerprints.json")
REWRITE = os.environ.get("VIDGEN_GOLDEN") == "rewrite"


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight from its own name and place: no dependence on the order of construction."""
    for name, p in module.named_parameters():
        noise = Noise([(0, name)], "golden").initial(tuple(p.shape))[0]
        p.data.copy_(noise / max(p[0].numel() if p.ndim > 1 else 10, 1) ** 0.5)
    return module.eval().requires_grad_(False)


def draw(name: str, *shape: int) -> torch.Tensor:
    return Noise([(1, name)], "golden").initial(shape)[0]


def conditions(b: int) -> dict[str, torch.Tensor]:
    return {
        "text": draw("text", b, 5, 12),
        "pooled": draw("pooled", b, 12),
        "text_mask": torch.arange(5).expand(b, -1) < 4,
    }


def network() -> torch.nn.Module:
    return filled(
        VideoDiT(
            DiTConfig(
                channels=4, dim=32, depth=2, heads=2, text_dim=12, pooled_dim=12,
                rope_dims=(4, 6, 6),
            )
        )
    )  # fmt: skip


def autoencoder() -> VideoAutoencoder:
    widths = (8, 12, 16)
    made = filled(
        VideoAutoencoder(
            AutoencoderConfig(channels=4, encoder_widths=widths, decoder_widths=widths)
        )
    )
    assert isinstance(made, VideoAutoencoder)
    return made


def sample(solver: str) -> torch.Tensor:
    net = network()
    denoise = denoiser(lambda z, t, cond: net(z, t, **cond), PREDICTIONS["flow"]())
    blank = {**conditions(1), "text": torch.zeros(1, 5, 12)}
    noise = Noise([(7, "sample")], "golden")
    guided = cfg(denoise, blank, 2.0)
    levels = linear_flow(4, shift=3.0)
    *_, last = SOLVERS[solver](guided, noise.initial((4, 3, 4, 4)), levels, conditions(1), noise)
    return last.z


def made() -> dict[str, torch.Tensor]:
    """Everything that has a fingerprint."""
    scenes = [sample_scene(3), sample_scene(4, level="full")]
    frames = render(scenes, num_frames=3, height=40, width=64).frames
    return {
        "noise": draw("noise", 4, 5),
        "transformer": network()(
            draw("z", 2, 4, 3, 4, 4), torch.tensor([0.2, 0.9]), **conditions(2)
        ),
        "encoder": autoencoder().encode(draw("frames", 1, 3, 2, 16, 24).tanh()),
        "decoder": autoencoder().decode(draw("latents", 1, 4, 2, 2, 3)),
        "world": frames.float() / 255,
        **{f"sampled by {name}": sample(name) for name in SOLVERS},
    }


def fingerprint(x: torch.Tensor) -> dict:
    flat = x.double().flatten()
    places = [0, len(flat) // 3, 2 * len(flat) // 3, len(flat) - 1]
    return {
        "shape": list(x.shape),
        "mean": round(float(flat.mean()), 6),
        "std": round(float(flat.std()), 6),
        "values": [round(float(flat[i]), 5) for i in places],
    }


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    prints = {name: fingerprint(x) for name, x in made().items()}
    if REWRITE:
        if FILE.exists():
            FILE.replace(FILE.with_suffix(".old"))
        lines = [f" {json.dumps(name)}: {json.dumps(x)}" for name, x in prints.items()]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return prints


def test_the_list_is_complete(found):
    assert list(found) == list(json.loads(FILE.read_text()))


@pytest.mark.parametrize("name", list(json.loads(FILE.read_text())) if FILE.exists() else [])
def test_fingerprint(found, name):
    golden = json.loads(FILE.read_text())[name]
    assert found[name]["shape"] == golden["shape"]
    for key in ("mean", "std", "values"):
        assert found[name][key] == pytest.approx(golden[key], rel=1e-3, abs=2e-4), key
