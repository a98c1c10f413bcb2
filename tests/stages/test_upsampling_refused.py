"""upsample: records, choices and models that are refused, and clips that don't fit into memory."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from latents_records import record
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidgen.errors import InputError, OutOfMemory, UsageError
from vidgen.io.record import Record
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.stages import memory
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.upsample import Choices, upsample
from vidgen.systems import upsampling, world
from vidgen.systems.base import ModelFolder
from vidgen.systems.upsampling import Upsampler


@pytest.fixture
def model(tiny_model) -> ModelFolder:
    return ModelFolder.find(str(tiny_model))


def larger(records, model, *, batch_size=4, **choices) -> list[Record]:
    compute = Compute("cpu", batch_size=batch_size)
    return list(upsample(records, model, Choices(**choices), compute=compute))


# --- memory ---------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_weights_are_read(model, monkeypatch):
    monkeypatch.setattr(Upsampler, "load", lambda self: pytest.fail("weights were read"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    records = [record(model.latent_space, id) for id in ("a", "b")]
    for batch, said, next in (
        (1, "--scale 8 of `a` takes about ", "a smaller --scale"),
        (2, "--scale 8 of 2 clips like `a` takes about ", "--batch-size 1, which takes about "),
    ):
        with pytest.raises(OutOfMemory) as caught:
            larger(records, model, scale=8, batch_size=batch)
        assert caught.value.what.startswith(said) and "cpu has 1.0 MB free" in caught.value.what
        assert caught.value.next.startswith(next)


def test_what_fits_is_made(model, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    assert larger([record(model.latent_space)], model)
    with pytest.raises(OutOfMemory, match="--scale 8"):
        larger([record(latents=torch.zeros(4, 64, 16, 16))], None, method="bilinear", scale=8)


def test_a_system_that_does_not_say_is_trusted(model, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert larger([record(model.latent_space)], model)


def test_free_memory_is_some_of_what_there_is():
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**20 < memory.free_bytes(torch.device("cpu")) <= whole


class Alive(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, of those made inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = {StorageWeakRef(p.untyped_storage()) for p in network.parameters()}
        self.known, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                if (ref := StorageWeakRef(storage)) not in self.weights:
                    self.known[ref] = storage.nbytes()
        self.known = {ref: n for ref, n in self.known.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self.known.values()))
        return out


@pytest.mark.parametrize(
    ("widths", "shape"),
    [((64, 128), (1, 8, 5, 10, 16)), ((32, 256), (1, 8, 2, 8, 8)),
     ((64, 96, 128), (2, 8, 3, 21, 30))],
)  # fmt: skip
def test_the_estimate_is_what_is_alive(widths, shape):
    off = (False,) * len(widths)
    config = UNetConfig(
        in_channels=16, out_channels=8, variant="interpolation", init_channels=32, widths=widths,
        self_attention=off, cross_attention=off, blocks=1, groups=8, time_dim=64, text_dim=0,
        noise_embedding="time", skip_rows=20,
    )  # fmt: skip
    with torch.device("meta"):
        network = UNet(config)
        z = torch.empty(shape)
        cond = upsampling.cond(config, z, z, torch.empty(shape[0]), torch.empty(shape[0]), 24.0)
        cond["skip"] = torch.zeros(shape[0], dtype=torch.int64)
        with torch.no_grad(), Alive(network) as alive:
            upsampling.raw(network)(z, torch.empty(shape[0]), cond)
    assert upsampling.weights(config) == sum(p.numel() for p in network.parameters())
    found = upsampling.memory_bytes(config, shape, 4) - 4 * upsampling.weights(config)
    assert 0.9 * alive.peak < found < 1.2 * alive.peak


@pytest.mark.parametrize(
    ("widths", "shape"), [((48, 96, 128), (1, 8, 5, 10, 16)), ((16, 32), (2, 4, 1, 6, 9))]
)
def test_the_estimate_of_enlarging_is_what_is_alive(widths, shape):
    config = AutoencoderConfig(channels=shape[1], encoder_widths=widths, decoder_widths=widths)
    b, c, t, h, w = shape
    with torch.device("meta"):
        vae = VideoAutoencoder(config)
        with Alive(vae) as alive:
            upsampling.enlarged(torch.empty(b, c, t, h // 2, w // 2), vae)
    assert upsampling.weights(config) == sum(p.numel() for p in vae.parameters())
    assert 0.9 * alive.peak < upsampling.pixel_bytes(config, shape, 4) < 1.3 * alive.peak


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def weights(monkeypatch):
    """Fails the test when weights are read."""
    monkeypatch.setattr(Upsampler, "load", lambda self: pytest.fail("weights were read"))
    monkeypatch.setattr(world, "load_autoencoder", lambda _: pytest.fail("weights were read"))


WRONG = {
    "times that stand still": (
        {"times": torch.zeros(3, dtype=torch.float64)}, "its latents are 0 s apart"
    ),
    "times that run back": (
        {"times": torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)}, "are -0.5 s apart"
    ),
    "too few times": ({"times": torch.zeros(2, dtype=torch.float64)}, "`times` is F64"),
    "other channels": ({"latents": torch.zeros(8, 3, 2, 4)}, "this stage takes"),
    "another space": ({"space": "other-vae@000000000000"}, "upsamples `tiny-vae@"),
    "no seed": ({"seed": "seven"}, "its seed is 'seven'"),
    "no height": ({"height": None}, "attribute `height` is None"),
    "a width in words": ({"width": "32"}, "attribute `width` is '32'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_records_that_cannot_be_upsampled(model, weights, name):
    changes, said = WRONG[name]
    bad = record(**{"space": model.latent_space} | changes)
    with pytest.raises(InputError) as caught:
        larger([bad], model)
    assert said in caught.value.what and len(caught.value.lines()) <= 3
    if name in ("no height", "a width in words"):
        with pytest.raises(InputError):
            larger([bad], None, method="bilinear")
    else:  # of which enlarging knows nothing
        assert larger([bad], None, method="bilinear")


def test_what_was_read_before_a_bad_record_is_made(model):
    good, bad = record(model.latent_space), record(model.latent_space, "b", width=0)
    made = upsample([good, bad], model, compute=Compute("cpu"))
    assert next(made).id == "ball"
    with pytest.raises(InputError, match="`b`: attribute `width` is 0"):
        next(made)


def test_wrong_kinds_and_records_without_times(model, weights):
    text = next(iter(encode_text([Prompt("a red ball")], model)))
    with pytest.raises(InputError, match="holds text, this stage takes latents"):
        larger([text], model)
    attrs = {"latent_space": model.latent_space, "height": 16, "width": 32}
    bare = Record.make("latents", "x", {"latents": torch.zeros(4, 3, 2, 4)}, attrs)
    with pytest.raises(InputError, match="no tensor `times`"):
        larger([bare], model)
    assert larger([bare], None, method="bilinear")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"scale": 3}, "--scale 3: sides are doubled"),
        ({"scale": 1}, "--scale 1:"),
        ({"scale": 2.5}, "--scale 2.5:"),
        ({"scale": 16}, "--scale 16:"),
        ({"method": "cubic"}, "no method `cubic`"),
        ({"method": "bilinear", "num_inference_steps": 5}, "--steps 5: --method bilinear has no"),
        ({"method": "bicubic", "num_inference_steps": 5}, "--steps 5: --method bicubic has no"),
        ({"method": "bilinear", "noise_level": 0.0}, "--noise-level 0: --method bilinear has no"),
        ({"noise_level": 0.6}, "--noise-level 0.6: `tiny` was trained on 0 to 0.5"),
        ({"noise_level": -0.1}, "--noise-level -0.1:"),
    ],
)
def test_choices_that_make_no_sense(model, weights, choices, said):
    with pytest.raises(UsageError) as caught:
        larger([record(model.latent_space)], model, **choices)
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "no component `upsampler`"),
        ({"in_channels": 9}, "in_channels is 9, latents of 4 channels want 8"),
        ({"out_channels": 8}, "out_channels is 8, latents of 4 channels want 4"),
        ({"skip_rows": 12}, "sample.max_skip is 12, and skip_rows 12"),
        ({"sample": None}, "no `sample`"),
        ({"sample": {"prediction": "v"}}, "sample.schedule is null"),
        ({"sample": {"schedule": "linear"}}, "no schedule is called `linear`"),
        ({"sample": {"prediction": "w"}}, "no prediction is called `w`"),
        ({"sample": {"solver": "ouler"}}, "no solver is called `ouler`"),
        ({"sample": {"noise_level": "some"}}, 'sample.noise_level is "some"'),
        ({"variant": "blocks"}, "builds no UNet"),
        ({"widths": [16, 32]}, "the weights are not those of its config.json"),
    ],
)
def test_models_that_make_no_sense(tiny_model, tmp_path, change, said):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "upsampler" / "config.json"
    config = json.loads(path.read_text())
    if change is None:
        shutil.rmtree(folder / "upsampler")
    else:
        if change.get("sample") and "is null" not in said:
            change = {"sample": config["sample"] | change["sample"]}
        path.write_text(json.dumps(config | change))
    model = ModelFolder.find(str(folder))
    with pytest.raises(InputError) as caught:
        larger([record(model.latent_space)], model)
    assert said in caught.value.what
    assert larger([record(model.latent_space)], model, method="bilinear")
