"""extend: what stays, where it depends on its noise, and what is refused before any weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from latents_records import Listener, image, same
from torch import nn

from tests import tiny
from vidgen.diffusion import guidance
from vidgen.errors import InputError, UsageError
from vidgen.io.log import broken_links
from vidgen.io.record import Record
from vidgen.nn.fit import FIT, FITConfig
from vidgen.stages import extend as module
from vidgen.stages import text_network
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.extend import extend
from vidgen.stages.extend_choices import Choices
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.systems import save
from vidgen.systems.base import SCHEDULER, ModelFolder

PROMPTS = [Prompt("a red ball", id="a", seed=5), Prompt("a blue cube spins", id="b", seed=6)]


@pytest.fixture(scope="module")
def folders(tiny_model, tmp_path_factory) -> dict[str, ModelFolder]:
    """A transformer on latents, a FIT on latents, a FIT on pixels."""
    root = tmp_path_factory.mktemp("models")
    tiny.make(root / "fit", name="fit")
    config = FITConfig(
        in_channels=4, out_channels=4, num_frames=3, height=2, width=4, patch=(1, 1, 2),
        group=(3, 2, 1), dim=32, latents=8, latent_dim=32, context_dim=16, text_dim=16, blocks=1,
        global_layers=1, head_dim=16, latent_head_dim=16, dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    sample = ModelFolder.find(str(root / "fit")).config("transformer")["sample"]
    save.write_component(root / "fit" / "transformer", config.to_dict() | {"sample": sample},
                         FIT(config))  # fmt: skip
    save.write_json(root / "fit" / SCHEDULER, {
        "prediction": "snap", "schedule": "snap", "solver": "heun", "num_inference_steps": 2,
        "guidance_scale": 2.0, "sigma_in": 2.0, "sigma_data": 1.0,
    })  # fmt: skip
    index = ModelFolder.find(str(root / "fit")).index | {"system": "snap-video"}
    save.write_json(root / "fit" / "model_index.json", index)
    tiny.pixels(root / "pixels", tiny_model)
    places = {"world": tiny_model, "fit": root / "fit", "pixels": root / "pixels"}
    return {name: ModelFolder.find(str(place)) for name, place in places.items()}


@pytest.fixture(scope="module")
def made(folders) -> dict[str, list[Record]]:
    """Two clips of each."""
    return {
        name: list(sample_keyframes(encode_text(PROMPTS, folder), folder, compute=Compute("cpu")))
        for name, folder in folders.items()
    }


ALL = pytest.mark.parametrize("name", ["world", "fit", "pixels"])


def longer(records, folder, *, batch_size=4, notify=None, **choices) -> list[Record]:
    more = {} if notify is None else {"notify": notify}
    compute = Compute("cpu", batch_size=batch_size)
    return list(extend(records, folder, Choices(**choices), compute=compute, **more))


# --- what stays -----------------------------------------------------------------------------------


@ALL
def test_known_frames_stay_to_the_bit(folders, made, name):
    (before, _), fps = made[name], folders[name].geometry.fps
    (after,) = longer([before], folders[name], num_frames=15, fps=2 * fps)
    latents, own = after.torch("latents"), before.torch("latents").float()
    assert latents.shape[1] == 15 and latents.isfinite().all() and latents.dtype == torch.float32
    assert torch.equal(latents[:, :6:2], own)
    assert torch.equal(after.torch("times")[:6:2], before.torch("times"))
    assert after.torch("times").tolist() == pytest.approx([i / fps / 2 for i in range(15)])
    assert (after.attrs["num_frames"], after.attrs["fps"]) == (15, 2 * fps)
    assert torch.equal(after.torch("text.embeds"), before.torch("text.embeds"))
    kept = {k: v for k, v in before.attrs.items() if k not in ("fps", "num_frames")}
    assert kept.items() <= after.attrs.items()
    frames = [latents[:, i] for i in range(15)]
    assert not any(torch.equal(a, b) for a, b in pairwise(frames))


def test_the_log_says_what_was_done(folders, made):
    (before, _), folder = made["fit"], folders["fit"]
    (after,) = longer([before], folder, num_frames=9, fps=4.0, overlap=2, weight=1.0)
    entry = after.log[-1]
    argv = ["--fps", "4", "--num-frames", "9", "--overlap", "2", "--weight", "1"]
    assert entry["argv"] == ["extend", *argv]
    assert (entry["seed"], entry["windows"]) == (5, [2, 4])
    assert entry["model"] == folder.identity("transformer")
    assert entry["inputs"] == [before.digest] and not broken_links(after.log)


def test_cameras_of_old_frames_alone_go(folders, made):
    cameras = {"camera.c2w": torch.eye(4)[:3].expand(3, 3, 4).contiguous()}
    (after,) = longer([made["world"][0].replace(tensors=cameras)], folders["world"], num_frames=5)
    assert "camera.c2w" not in after.tensors


def test_half_precision_is_read(folders, made):
    half = made["world"][0].torch("latents").half()
    (after,) = longer([made["world"][0].replace(tensors={"latents": half})], folders["world"],
                      num_frames=4)  # fmt: skip
    assert torch.equal(after.torch("latents")[:, :3], half.float())


def test_a_single_frame_is_enough(folders, made):
    before = made["world"][0]
    first = {"latents": before.torch("latents")[:, :1], "times": before.torch("times")[:1]}
    (after,) = longer([before.replace(tensors=first)], folders["world"], num_frames=5, overlap=2)
    assert torch.equal(after.torch("latents")[:, :1], first["latents"])
    assert after.torch("times").tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_rate_stays_what_it_was(folders, made):
    """Nine sevenths of a second are not 9 frames at 7 a second to the bit."""
    seven = {
        "latents": torch.zeros(4, 10, 2, 4),
        "times": torch.arange(10, dtype=torch.float64) / 7,
    }
    before = made["world"][0].replace(tensors=seven, attrs={"fps": 7.0, "num_frames": 10})
    (after,) = longer([before], folders["world"], num_frames=11)
    assert after.attrs["fps"] == 7.0


def test_pixels_are_clipped_after_the_known_frames_pulled(folders, made, tmp_path, monkeypatch):
    """What the gradient is taken of is unclipped, and new frames end within the limit."""
    shutil.copytree(folders["pixels"].path, tmp_path / "tamed")
    settings = json.loads((tmp_path / "tamed" / SCHEDULER).read_text())
    save.write_json(tmp_path / "tamed" / SCHEDULER, settings | {"threshold": 0.9})
    reconstruction = guidance.reconstruction
    seen: list[float] = []

    def watched(denoise, *rest):
        def looked(z, level, cond):
            x0 = denoise(z, level, cond)
            seen.append(float(x0.detach().abs().max()))
            return x0

        return reconstruction(looked, *rest)

    monkeypatch.setattr(guidance, "reconstruction", watched)
    before = made["pixels"][0]
    over = before.replace(tensors={"latents": 1.5 * before.torch("latents")})
    for place, tamed in ((folders["pixels"].path, False), (tmp_path / "tamed", True)):
        seen.clear()
        (after,) = longer([over], ModelFolder(place), num_frames=5, guidance_scale=9.0)
        latents = after.torch("latents")
        assert torch.equal(latents[:, :3], over.torch("latents"))
        assert max(seen) > 1
        assert (float(latents[:, 3:].abs().max()) <= 1) == tamed


# --- noise ----------------------------------------------------------------------------------------


def test_the_same_bytes_again_and_another_seed_other_frames(folders, made):
    (before, _), folder = made["fit"], folders["fit"]
    once, again = (image(longer([before], folder, num_frames=7)) for _ in range(2))
    assert once == again
    (other,) = longer([before.replace(attrs={"seed": 9})], folder, num_frames=7)
    (first,) = longer([before], folder, num_frames=7)
    assert not torch.equal(other.torch("latents")[:, 3:], first.torch("latents")[:, 3:])


@ALL
def test_a_batch_equals_its_singles(folders, made, name):
    # A random network's gradient is no smaller where there is nothing but noise, and is weighed up.
    together = longer(made[name], folders[name], num_frames=5, weight=0.01)
    alone = longer(made[name], folders[name], num_frames=5, weight=0.01, batch_size=1)
    for a, b in zip(together, alone, strict=True):
        same(a, b)


def test_longer_twice_is_longer_at_once(folders, made):
    folder = folders["world"]
    (once,) = longer(made["world"][:1], folder, num_frames=7)
    (twice,) = longer(longer(made["world"][:1], folder, num_frames=5), folder, num_frames=7)
    assert torch.equal(once.torch("latents"), twice.torch("latents"))


def test_records_of_several_lengths_in_one_stream(folders, made):
    folder = folders["world"]
    five = longer(made["world"][:1], folder, num_frames=5)
    mixed = longer([*five, made["world"][1]], folder, num_frames=7)
    assert [r["latents"].shape[1] for r in mixed] == [7, 7]
    assert torch.equal(mixed[0].torch("latents")[:, :5], five[0].torch("latents"))


# --- what the network is told ---------------------------------------------------------------------


def test_a_network_that_copies_makes_the_others_alike(folders, made, monkeypatch):
    """Of frames that are all alike, knowing one is knowing all: the mean of what the network sees
    is its estimate, and known frames pull it."""

    class Mean(nn.Module):
        config = folders["world"].config("transformer")

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, z, t, **told):
            """As flow, eps − x0: of x0 = (1 − t) mean of z / ((1 − t)² + t²/3)."""
            t = t.view(-1, 1, 1, 1, 1)
            x0 = (1 - t) * z.mean(dim=2, keepdim=True) / ((1 - t) ** 2 + t**2 / z.shape[2])
            return (z - x0.expand_as(z)) / t

    class System:
        load_transformer = staticmethod(lambda folder: Mean())
        sample_shape = staticmethod(lambda folder, config: (4, 3, 2, 4))
        called = staticmethod(lambda network: lambda z, t, cond: network(z, t))

    for at in (module, text_network):
        monkeypatch.setattr(at, "system_of", lambda folder: System)
    still = torch.randn(4, 1, 2, 4, generator=torch.Generator().manual_seed(0))
    before = made["world"][0].replace(tensors={"latents": still.expand(4, 3, 2, 4).contiguous()})
    off = {}
    for weight in (0.0, 1.0):
        (after,) = longer([before], folders["world"], num_frames=5, weight=weight,
                          guidance_scale=1.0, num_inference_steps=20)  # fmt: skip
        off[weight] = float((after.torch("latents")[:, 3:] - still).abs().mean())
    assert off[1.0] < off[0.0] / 3


def test_windows_are_told_their_rate_and_unknown_ones_warned_of_once(folders, made):
    listener = Listener()
    longer(made["world"], folders["world"], num_frames=9, fps=4.0, notify=listener)
    assert listener.warnings == ["`tiny` was trained on 2 frames a second, and is told 4"]
    listener = Listener()
    longer(made["pixels"], folders["pixels"], fps=4.0, notify=listener)
    assert folders["pixels"].config("transformer")["sample"]["rates"] == [2.0, 4.0]
    assert listener.warnings == []
    assert listener.steps[-1] == (4, 4, "step")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({}, "neither a length nor a rate is asked for"),
        ({"num_frames": 5, "overlap": 3}, "--overlap 3: `tiny` makes 3 frames at once"),
        ({"num_frames": 5, "overlap": 0}, "--overlap 0"),
        ({"num_frames": 3}, "has 3 frames at 2 a second already"),
        ({"fps": 2.0}, "has 3 frames at 2 a second already"),
        ({"num_frames": 2}, "--num-frames 2: record `a` has 3, which become 3 at this rate"),
        ({"fps": 3.0}, "--fps 3: record `a` has 2 frames a second, and a rate can only be multi"),
        ({"fps": 1.0}, "--fps 1: record `a`"),
        ({"fps": 4.0, "num_frames": 8}, "--num-frames 8: 2 times as many frames a second begin"),
        ({"fps": 6.0}, "--fps 6: record `a` has 2 frames a second, and for 3 times as many"),
    ],
)
def test_lengths_and_rates_that_can_not_be_had(folders, made, monkeypatch, choices, said):
    monkeypatch.setattr(text_network, "system_of", lambda _: pytest.fail("weights were read"))
    with pytest.raises(UsageError) as caught:
        longer(made["world"], folders["world"], **choices)
    assert said in str(caught.value) and caught.value.next


def test_records_that_can_not_be_extended(folders, made, monkeypatch):
    monkeypatch.setattr(text_network, "system_of", lambda _: pytest.fail("weights were read"))
    before, folder = made["world"][0], folders["world"]
    text = next(iter(encode_text(PROMPTS[:1], folder)))
    uneven = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    for wrong, said in (
        (text, "holds text, this stage takes latents"),
        (made["fit"][0], "latents are in space `fit-vae@"),
        (made["pixels"][0], "latents are in space `pixels`, `tiny` extends `tiny-vae@"),
        (before.replace(tensors={"latents": torch.zeros(4, 3, 4, 4)}), "`latents` is F32 [4, 3, 4"),
        (before.replace(drop=["text.*"]), "has no text, and the network is told what to show"),
        (before.replace(attrs={"text_encoder": "x"}), "text is encoded by `x`"),
        (before.replace(tensors={"times": uneven}), "its latents are 0.5 to 1 s apart"),
        (before.replace(tensors={"times": uneven.flip(0)}), "its latents are -1 to -0.5 s apart"),
    ):
        with pytest.raises(InputError) as caught:
            longer([wrong], folder, num_frames=5)
        assert said in str(caught.value)


def test_too_short_for_a_window(folders, made):
    before = made["world"][0]
    two = {"latents": before.torch("latents")[:, :1], "times": before.torch("times")[:1]}
    with pytest.raises(UsageError, match="is to be 2 frames long, and `tiny` makes 3 at once"):
        longer([before.replace(tensors=two)], folders["world"], num_frames=2)


def test_released_models_are_refused(folders):
    class Released:
        released, name, system = True, "Wan", "wan"

    with pytest.raises(UsageError, match="whose latents stand for several frames each"):
        replace(Choices(), num_frames=9).check_for(Released())
