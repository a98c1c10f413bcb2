"""interpolate: what stays in its place, what comes between, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latents_records import Listener, image, record, same
from torch import nn

from vidgen.diffusion.groups import PACKINGS
from vidgen.errors import InputError, UsageError
from vidgen.io.log import broken_links
from vidgen.io.record import Record
from vidgen.io.stream import read_stream
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.interpolate import Choices, interpolate
from vidgen.stages.sample_keyframes import Choices as Samples
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.systems.base import INTERPOLATIONS, ModelFolder
from vidgen.systems.interpolation import Interpolator, Settings

NETWORKS = sorted(INTERPOLATIONS)


@pytest.fixture
def model(tiny_model) -> ModelFolder:
    return ModelFolder.find(str(tiny_model))


def finer(records, model, *, batch_size=4, notify=None, **choices) -> list[Record]:
    more = {} if notify is None else {"notify": notify}
    compute = Compute("cpu", batch_size=batch_size)
    return list(interpolate(records, model, Choices(**choices), compute=compute, **more))


# --- what stays -----------------------------------------------------------------------------------


@given(count=st.integers(2, 9), passes=st.integers(1, 3))
def test_keyframes_and_their_times_keep_their_places(count, passes):
    before = record(count=count)
    (after,) = finer([before], None, method="linear", passes=passes)
    n = 4**passes
    size = n * (count - 1) + 1
    assert after.torch("latents").shape == (4, size, 2, 4)
    assert torch.equal(after.torch("latents")[:, ::n], before.torch("latents"))
    assert torch.equal(after.torch("times")[::n], before.torch("times"))
    assert after.torch("times").tolist() == [0.5 * i / n for i in range(size)]
    assert (after.attrs["num_frames"], after.attrs["fps"]) == (size, 2.0 * n)


@pytest.mark.parametrize("method", NETWORKS)
def test_networks_leave_keyframes_to_the_bit(model, method):
    before = record(model.latent_space)
    once, twice = (finer([before], model, method=method, passes=n)[0] for n in (1, 2))
    assert torch.equal(once.torch("latents")[:, ::4], before.torch("latents"))
    assert torch.equal(twice.torch("latents")[:, ::4], once.torch("latents"))
    assert torch.equal(twice.torch("latents")[:, ::16], before.torch("latents"))
    made = twice.torch("latents")
    assert made.isfinite().all() and made.dtype == torch.float32
    assert not torch.equal(made[:, 1:-1], finer([before], None, method="linear", passes=2)[0]
                           .torch("latents")[:, 1:-1])  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keyframes_keep_their_values(dtype):
    latents = torch.randn(4, 3, 2, 4).to(dtype)
    (after,) = finer([record(latents=latents)], None, method="linear")
    assert torch.equal(after.torch("latents")[:, ::4], latents.float())


def test_text_and_attributes_stay_and_the_log_says_what_was_done(model):
    texts = encode_text([Prompt("a red ball", seed=5)], model)
    (keyframes,) = sample_keyframes(texts, model, compute=Compute("cpu"))
    (after,) = finer([keyframes], model, passes=2)
    assert torch.equal(after.torch("text.embeds"), keyframes.torch("text.embeds"))
    kept = {k: v for k, v in keyframes.attrs.items() if k not in ("fps", "num_frames")}
    assert kept.items() <= after.attrs.items()
    entry = after.log[-1]
    assert entry["tool"] == "interpolate" and entry["argv"] == ["interpolate", "--passes", "2"]
    assert entry["model"] == model.identity("interpolation")
    assert (entry["method"], entry["seed"], entry["steps"]) == ("grouped", 5, 3)
    assert (entry["guidance_scale"], entry["skips"]) == (1.25, [3, 1])
    assert entry["inputs"] == [keyframes.digest] and not broken_links(after.log)


def test_cameras_of_keyframes_alone_go():
    cameras = {"camera.c2w": torch.eye(4)[:3].expand(3, 3, 4).contiguous()}
    (made,) = finer([record().replace(tensors=cameras)], None, method="linear")
    assert set(made.tensors) == {"latents", "times"}


def test_linear_is_noted_as_such(model):
    (after,) = finer([record(model.latent_space)], model, method="linear")
    entry = after.log[-1]
    assert entry["method"] == "linear" and entry["argv"] == ["interpolate", "--method", "linear"]
    assert not {"model", "seed", "noise", "torch", "skips"} & entry.keys()


# --- what comes between ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", NETWORKS)
def test_a_perfect_denoiser_gives_back_a_linear_motion(model, monkeypatch, method):
    """Through noise, solver, packing, guidance and two passes."""
    start, speed = torch.randn(2, 4, 2, 4, generator=torch.Generator().manual_seed(3))
    packing, last = PACKINGS[method], 3  # keyframes at 0 … 3

    def position(where: torch.Tensor) -> torch.Tensor:
        return start[:, None] + speed[:, None] * where[:, None, None]

    def perfect(z, level, cond):
        frames = packing.unpack(z).shape[2] // 3 * 4
        truth = position(torch.arange(frames + 1) * last / frames)
        others = torch.arange(frames + 1) % 4 > 0
        x0 = packing.pack(truth[None, :, ::4], truth[None][:, :, others])
        return x0.expand_as(z)

    network = nn.Module()
    network.config = SimpleNamespace(skip_rows=20, noise_embedding="time")
    monkeypatch.setattr(Interpolator, "load", lambda self: network)
    monkeypatch.setattr(Interpolator, "denoiser", lambda self, network: perfect)
    keyframes = position(torch.arange(last + 1.0))
    before = [record(model.latent_space, id, latents=keyframes) for id in ("a", "b")]
    for after in finer(before, model, method=method, passes=2):
        expected = position(torch.arange(16 * last + 1) / 16)
        torch.testing.assert_close(after.torch("latents"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("passes", [1, 2])
def test_linear_is_numpys(passes):
    before = record(count=4)
    (after,) = finer([before], None, method="linear", passes=passes)
    rows = before.numpy("latents").transpose(0, 2, 3, 1).reshape(-1, 4)
    at = after.numpy("times") / 0.5
    slow = np.stack([np.interp(at, np.arange(4), row) for row in rows]).reshape(4, 2, 4, -1)
    found = after.numpy("latents").transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-6)


def test_steps_and_guidance_matter_and_are_logged(model):
    before = record(model.latent_space)
    (base,) = finer([before], model)
    for choices, flag in (
        ({"num_inference_steps": 5}, "--steps"),
        ({"guidance_scale": 1.0}, "--guidance-scale"),
        ({"method": "masked"}, "--method"),
    ):
        (changed,) = finer([before], model, **choices)
        assert not torch.allclose(base.torch("latents"), changed.torch("latents"), atol=1e-4), flag
        assert flag in changed.log[-1]["argv"]


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NETWORKS)
def test_a_batch_equals_its_singles(model, method):
    """Also where it holds clips of several lengths, and those come in their order."""
    records = [record(model.latent_space, id, count=n) for id, n in
               (("a", 3), ("b", 3), ("c", 2), ("d", 3), ("e", 4))]  # fmt: skip
    one, four = (finer(records, model, batch_size=n, method=method, passes=2) for n in (1, 4))
    assert [r.id for r in one] == [r.id for r in four] == ["a", "b", "c", "d", "e"]
    for a, b in zip(one, four, strict=True):
        same(a, b)


def test_two_passes_are_two_stages_in_a_pipe(model):
    before = [record(model.latent_space)]
    (once,) = finer(before, model, passes=2)
    (piped,) = finer(finer(before, model), model)
    assert torch.equal(once.torch("latents"), piped.torch("latents"))
    assert torch.equal(once.torch("times"), piped.torch("times"))
    assert once.attrs == piped.attrs


def test_seed_source_and_pass_decide_the_noise(model, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "vidgen.stages.interpolate.Noise",
        lambda samples, stage: drawn.append((samples, stage)) or Noise(samples, stage),
    )
    from vidgen.diffusion.noise import Noise

    named = record(model.latent_space, "ball-s7", seed=7, source="ball")
    finer([named, record(model.latent_space, "b", seed=2)], model, passes=2)
    samples = [(7, "ball"), (2, "b")]
    assert drawn == [(samples, "interpolate 3"), (samples, "interpolate 9")]


def test_a_sample_of_several_is_that_sample_alone(model):
    texts = list(encode_text([Prompt("a red ball")], model))
    ranged, alone = (
        list(sample_keyframes(texts, model, Samples(seeds=s), compute=Compute("cpu")))[-1]
        for s in ((7, 8), (8,))
    )
    assert ranged.id != alone.id
    same(*finer([ranged, alone], model))


def test_stages_through_bytes_equal_stages_in_one_process(model):
    """Law L5, with noise and networks."""
    texts = list(encode_text([Prompt("a red ball"), Prompt("a blue cube")], model))
    compute = Compute("cpu")
    sampled = image(sample_keyframes(texts, model, compute=compute))
    piped = image(finer(read_stream(io.BytesIO(sampled)), model))
    assert piped == image(finer(sample_keyframes(texts, model, compute=compute), model))


# --- how far apart --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "passes", "skips", "warned"),
    [
        (0.5, 2, [3, 1], 0),  # the paper's 2 → 8 → 30 frames a second
        (2.0, 1, [12], 0),
        (0.26, 1, [2], 0),
        (4.0, 1, [12], 1),  # further apart than the network knows
        (0.04, 1, [1], 1),  # nearer: a quarter of a frame
        (0.5, 3, [3, 1, 1], 1),
    ],
)
def test_the_skip_follows_from_the_times(model, spacing, passes, skips, warned):
    heard = Listener()
    (after,) = finer([record(model.latent_space, spacing=spacing)], model, passes=passes,
                     notify=heard)  # fmt: skip
    assert after.log[-1]["skips"] == skips
    assert len(heard.warnings) == warned
    assert all("tiny" in line and "trained on" in line for line in heard.warnings)


def test_the_skip_is_told_to_the_network(model):
    """Times stretched so that only the skip differs: other frames."""
    a, b = (record(model.latent_space, spacing=s) for s in (0.5, 1.0))
    first, second = finer([a, b], model)
    assert not torch.allclose(first.torch("latents"), second.torch("latents"), atol=1e-5)


def test_skips_are_whole_frames_within_what_is_known():
    settings = Settings("v", "cosine", "euler", 3, 1.25, fps=24.0, max_skip=12)
    found = [settings.skip(x / 24) for x in (0.1, 0.75, 1.4, 1.6, 12.4, 30)]
    assert found == [1, 1, 1, 2, 12, 12]


def test_a_record_without_a_rate_gets_that_of_its_times():
    plain = record(spacing=0.25)
    plain.attrs.pop("fps")
    (after,) = finer([plain], None, method="linear")
    assert after.attrs["fps"] == 16


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def weights(monkeypatch):
    """Fails the test when weights are read."""
    monkeypatch.setattr(Interpolator, "load", lambda self: pytest.fail("weights were read"))


WRONG = {
    "one latent": (
        {"latents": torch.zeros(4, 1, 2, 4)}, "holds one latent, and frames are made between two"
    ),
    "uneven times": (
        {"times": torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)}, "are 0.5 to 1 s apart"
    ),
    "times that stand still": (
        {"times": torch.zeros(3, dtype=torch.float64)}, "are 0 to 0 s apart"
    ),
    "times that run back": (
        {"times": torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)}, "are -0.5 to -0.5 s apart"
    ),
    "too few times": ({"times": torch.zeros(2, dtype=torch.float64)}, "`times` is F64"),
    "other channels": ({"latents": torch.zeros(8, 3, 2, 4)}, "this stage takes"),
    "another space": ({"space": "other-vae@000000000000"}, "interpolates `tiny-vae@"),
    "no seed": ({"seed": "seven"}, "its seed is 'seven'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_records_that_cannot_be_interpolated(model, weights, name):
    changes, said = WRONG[name]
    bad = record(**{"space": model.latent_space} | changes)
    with pytest.raises(InputError) as caught:
        finer([bad], model)
    assert said in caught.value.what and len(caught.value.lines()) <= 3
    if name not in ("another space", "other channels"):  # of which blending knows nothing
        with pytest.raises(InputError):
            finer([bad], None, method="linear")


def test_what_was_read_before_a_bad_record_is_made(model):
    good, bad = record(model.latent_space), record(model.latent_space, "b", count=1)
    made = interpolate([good, bad], model, compute=Compute("cpu"))
    assert next(made).id == "ball"
    with pytest.raises(InputError, match="`b` holds one latent"):
        next(made)


def test_wrong_kinds_and_records_without_times(model, weights):
    text = next(iter(encode_text([Prompt("a red ball")], model)))
    with pytest.raises(InputError, match="holds text, this stage takes latents"):
        finer([text], model)
    bare = Record.make("latents", "x", {"latents": torch.zeros(4, 3, 2, 4)})
    with pytest.raises(InputError, match="no tensor `times`"):
        finer([bare], None, method="linear")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"passes": 0}, "0 passes: there must be one or more"),
        ({"method": "cubic"}, "no method `cubic`"),
        ({"method": "linear", "num_inference_steps": 5}, "--steps 5: --method linear blends"),
        ({"method": "linear", "guidance_scale": 2.0}, "--guidance-scale 2: --method linear"),
    ],
)
def test_choices_that_make_no_sense(model, weights, choices, said):
    with pytest.raises(UsageError) as caught:
        finer([record(model.latent_space)], model, **choices)
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "no component `interpolation`"),
        ({"in_channels": 21}, "in_channels is 21, latents of 4 channels want 20"),
        ({"out_channels": 4}, "out_channels is 4, latents of 4 channels want 12"),
        ({"skip_rows": 12}, "sample.max_skip is 12, and skip_rows 12"),
        ({"sample": None}, "no `sample`"),
        ({"sample": {"prediction": "v"}}, "sample.schedule is null"),
        ({"sample": {"schedule": "linear"}}, "no schedule is called `linear`"),
        ({"sample": {"prediction": "w"}}, "no prediction is called `w`"),
        ({"sample": {"solver": "ouler"}}, "no solver is called `ouler`"),
        ({"sample": {"target": "pixels"}}, "no target is called `pixels`"),
        ({"sample": {"spread": 0}}, "sample.spread is 0, must be a number above 0"),
        ({"variant": "blocks"}, "builds no UNet"),
        ({"widths": [16, 32]}, "the weights are not those of its config.json"),
    ],
)
def test_models_that_make_no_sense(tiny_model, tmp_path, change, said):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "interpolation" / "config.json"
    config = json.loads(path.read_text())
    if change is None:
        shutil.rmtree(folder / "interpolation")
    else:
        if change.get("sample") and len(change["sample"]) == 1 and "is null" not in said:
            change = {"sample": config["sample"] | change["sample"]}
        path.write_text(json.dumps(config | change))
    model = ModelFolder.find(str(folder))
    with pytest.raises(InputError) as caught:
        finer([record(model.latent_space)], model)
    assert said in caught.value.what
    assert finer([record(model.latent_space)], model, method="linear")
