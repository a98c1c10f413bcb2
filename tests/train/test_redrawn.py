"""Clips as a model makes them near to rendered ones, and a video decoder that learns from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.tiny import change, leave
from vidgen.errors import InputError, UsageError
from vidgen.nn.pixels import from_uint8
from vidgen.stages import sample_keyframes as stage
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.redraw import redraw, shown
from vidgen.systems import world
from vidgen.systems.base import ModelFolder
from vidgen.train.distributed import World
from vidgen.train.loop import train
from vidgen.train.recipe import Optim, Recipe
from vidgen.train.task import make_task
from vidgen.train.tasks import latents, redrawn
from vidgen.train.tasks.redrawn import Redrawn, compute_of, digest, of_seeds, redrawn_clips
from vidgen.world.captions import caption
from vidgen.world.render import render
from vidgen.world.scene import sample_scene

DECODER = {
    "channels": 4, "widths": [8, 8, 8], "blocks": 1, "attention": [], "patch": 2, "groups": 4,
    "temporal": "conv1d",
}  # fmt: skip
CPU = Compute("cpu", "fp32", batch_size=4)
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("parts") / "tiny")


@pytest.fixture
def model(path) -> ModelFolder:
    return ModelFolder.find(str(path))


@pytest.fixture
def small(path, tmp_path) -> ModelFolder:
    """The same without an upsampler."""
    folder = Path(shutil.copytree(path, tmp_path / "small"))
    leave(folder, "scheduler", "text_encoder", "tokenizer", "transformer", "vae", "interpolation")
    return ModelFolder(folder)


@pytest.fixture
def few_together(monkeypatch):
    monkeypatch.setattr(redrawn, "SHARD", 4)
    monkeypatch.setattr(latents, "CHUNK", 2)


def captioned(*seeds: int):
    scenes = [sample_scene(seed) for seed in seeds]
    return scenes, [caption(scene) for scene in scenes]


def latents_of(model: ModelFolder, scenes, captions, strength: float) -> torch.Tensor:
    made = redraw(scenes, captions, model, strength, compute=CPU)
    return torch.stack([record.torch("latents") for record in made])


def encoded(model: ModelFolder, scenes) -> torch.Tensor:
    g = model.geometry
    frames = render(scenes, times=g.times, height=g.height, width=g.width).frames
    with torch.no_grad():
        vae = world.load_autoencoder(model).float()
        return vae.encode(from_uint8(frames.permute(0, 4, 1, 2, 3)))


@pytest.mark.parametrize("scale", [1, 2])
def test_what_comes_out_is_what_its_decoder_gets(model, small, scale):
    scenes, captions = captioned(1, 2)
    folder = {1: small, 2: model}[scale]
    records = list(redraw(scenes, captions, folder, 0.9, compute=CPU))
    g, first = shown(folder), folder.geometry
    assert (g.height, g.width) == (scale * first.height, scale * first.width)
    assert g.num_frames == 4 * first.num_frames - 3 and g.fps == 4 * first.fps
    for record, scene in zip(records, scenes, strict=True):
        shape = (4, g.num_frames, g.height // 8, g.width // 8)
        assert tuple(record["latents"].shape) == shape
        assert record.attrs["seed"] == scene.seed and "init.latents" not in record.tensors
        stages = [entry["tool"] for entry in record.log]
        assert "sample-keyframes" in " ".join(stages)


def test_a_network_that_knows_the_clip_gives_it_back(small, monkeypatch):
    """Then nothing is left of the noise, however much there was."""
    scenes, captions = captioned(3, 4)
    true = encoded(small, scenes)
    monkeypatch.setattr(stage, "denoiser", lambda *_: lambda z, level, cond: true[: len(z)])
    monkeypatch.setattr(stage.load, "guided", lambda denoise, *_: denoise)
    for strength in (0.8, 1.0):
        made = latents_of(small, scenes, captions, strength)[:, :, ::4]
        torch.testing.assert_close(made, true, rtol=1e-4, atol=1e-5)


def test_the_network_is_first_given_the_clip_with_as_much_noise(small, monkeypatch):
    """z = alpha·x0 + sigma·eps, at the first level whose share of noise is the strength at most."""
    scenes, captions = captioned(5, 6)
    true, given = encoded(small, scenes), []
    monkeypatch.setattr(
        stage, "denoiser",
        lambda *_: lambda z, level, cond: given.append((z, level)) or true[: len(z)],
    )  # fmt: skip
    monkeypatch.setattr(stage.load, "guided", lambda denoise, *_: denoise)
    latents_of(small, scenes, captions, 0.85)
    z, level = given[0]
    share = float(level.sigma.flatten()[0])
    levels = [float(x.sigma) for x in stage.load.levels(small, small.sampler.num_inference_steps)]
    assert share == pytest.approx(max(x for x in levels if x <= 0.85)) and share > 0.5
    noise = (z - (1 - share) * true) / share
    assert noise.std() == pytest.approx(1.0, abs=0.1) and abs(float(noise.mean())) < 0.1


def test_draws_do_not_change_and_captions_matter(model, small):
    of = [of_seeds(model, range(8, 10), "basic", (0.8, 0.9), CPU) for _ in range(2)]
    assert torch.equal(*of)
    scenes, captions = captioned(8, 9)
    one, two = (latents_of(small, scenes, said, 0.9) for said in (captions, captions[::-1]))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("strength", "said"),
    [(0.0, "must be above 0"), (1.1, "1 at most"), (0.01, "the last begins at")],
)
def test_a_strength_that_no_level_has_is_refused(small, strength, said):
    with pytest.raises(UsageError, match=said):
        list(redraw(*captioned(1), small, strength, compute=CPU))


def test_what_is_no_beginning_is_refused(model, small):
    scenes, captions = captioned(1)
    (text,) = encode_text([Prompt(captions[0])], model)
    sampled = stage.sample_keyframes([text], model, stage.Choices(strength=0.9), compute=CPU)
    with pytest.raises(InputError, match=r"has no `init\.latents`"):
        list(sampled)
    large = next(redraw(scenes, captions, model, 0.9, compute=CPU))
    begun = stage.begin_as(text, large, model)
    sampled = stage.sample_keyframes([begun], model, stage.Choices(strength=0.9), compute=CPU)
    with pytest.raises(InputError, match=r"latents to begin as are 4 × 9 × .* makes 4 × 3 ×"):
        list(sampled)
    with pytest.raises(InputError, match="latents are in space"):
        stage.begin_as(text, large.replace(attrs={"latent_space": "another"}), model)
    with pytest.raises(InputError):
        stage.begin_as(text, text, model)


def test_a_model_that_is_not_whole_redraws_nothing(path, tmp_path):
    folder = Path(shutil.copytree(path, tmp_path / "part"))
    leave(folder, "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    with pytest.raises(InputError, match="has no interpolation"):
        redraw(*captioned(1), ModelFolder(folder), 0.9, compute=CPU)


@pytest.mark.usefixtures("few_together")
def test_clips_are_made_once(model, tmp_path, monkeypatch):
    said: list[str] = []

    def made(**more):
        wanted = Redrawn(num=3, num_full=2, cache=str(tmp_path), **more)
        return redrawn_clips(model, wanted, compute=CPU, world=ALONE, say=said.append)

    clips = made(strength=(0.8, 0.9))
    assert clips.shape[0] == 5 and len(said) == 2
    torch.testing.assert_close(
        clips[3:].float(), of_seeds(model, range(2), "full", (0.8, 0.9), CPU), rtol=0.01, atol=0.01
    )
    with monkeypatch.context() as patch:
        patch.setattr(redrawn, "redraw", lambda *_: pytest.fail("they are kept"))
        assert torch.equal(made(strength=(0.8, 0.9)), clips)
    assert not torch.equal(made(strength=(1.0, 1.0)), clips) and len(said) == 4


def test_another_model_is_another_cache(path, model, tmp_path):
    """By weights, by how its stages sample, and by dtype."""
    found = {digest(model, CPU), digest(model, compute_of("bfloat16", torch.device("cpu")))}
    for i, (component, edit) in enumerate(
        [
            ("interpolation", lambda c: c["sample"].update(num_inference_steps=7)),
            ("upsampler", lambda c: c["sample"].update(noise_level=0.2)),
            ("transformer", lambda c: c.update(time_scale=3.0)),
        ]
    ):
        folder = Path(shutil.copytree(path, tmp_path / str(i)))
        file = folder / component / "config.json"
        config = json.loads(file.read_text())
        edit(config)
        file.write_text(json.dumps(config))
        found.add(digest(ModelFolder(folder), CPU))
    assert len(found) == 5
    again = Path(shutil.copytree(path, tmp_path / "again"))
    assert digest(ModelFolder(again), CPU) in found


def recipe(path: Path, cache: Path, share: float = 1.0) -> Recipe:
    wanted = {"num": 3, "num_full": 2, "share": share, "strength": [0.8, 0.9], "cache": str(cache)}
    data = {
        "vae": str(path), "sizes": [[32, 64]], "num_frames": [2, 3], "level": "basic",
        "redrawn": wanted,
    }  # fmt: skip
    return Recipe(
        "video-decoder", model=DECODER, data=data, steps=2, batch_size=4, log_every=1,
        optim=Optim(name="adamw"),
    )  # fmt: skip


@pytest.mark.usefixtures("few_together")
def test_a_decoder_is_shown_what_was_rendered(path, tmp_path):
    task = make_task(recipe(path, tmp_path))
    modules = task.build()
    task.prepare(modules, lambda line: None)
    strides = set()
    for step in range(12):
        batch = task.batch(step, 0, 1)
        halves = [task.batch(step, rank, 2) for rank in range(2)]
        for key in ("frames", "latents"):
            assert torch.equal(batch[key], torch.cat([half[key] for half in halves]))
        clip = batch["latents"][0]
        row = next(i for i, x in enumerate(task.redrawn) if _places(clip, x) is not None)
        places = _places(clip, task.redrawn[row])
        strides |= set(torch.tensor(places).diff().tolist())
        level, seed = task.scenes[row]
        g, scene = task.geometry, sample_scene(seed, level=level)
        times = [g.times[i] for i in places]
        true = render([scene], times=times, height=g.height, width=g.width).frames[0]
        assert torch.equal(batch["frames"][0], true)
    assert strides == {1, 4}  # frames one after the other, and keyframes


def _places(clip: torch.Tensor, whole: torch.Tensor) -> list[int] | None:
    """Where in `whole` the frames of a clip are, both `c t h w`."""
    found = []
    for i in range(clip.shape[1]):
        same = (whole == clip[:, i : i + 1]).flatten(2).all(dim=2).all(dim=0).nonzero()
        if not len(same):
            return None
        found.append(int(same[0]))
    return found


@pytest.mark.usefixtures("few_together")
def test_it_trains_on_both_kinds_and_measures_both(path, tmp_path):
    task = make_task(recipe(path, tmp_path / "cache", share=0.5))
    modules = task.build()
    task.prepare(modules, lambda line: None)
    kinds = {"latents" in task.batch(step, 0, 1) for step in range(12)}
    assert kinds == {True, False}
    with torch.no_grad():
        found = task.evaluate(modules, 0)
    assert {"psnr_32x64", "psnr_redrawn", "image_psnr_redrawn"} <= found.keys()
    train(recipe(path, tmp_path / "cache", share=0.5), tmp_path / "run", device="cpu")
    assert "video_decoder" in ModelFolder.find(str(tmp_path / "run" / "model")).index


@pytest.mark.usefixtures("few_together")
def test_the_discriminator_has_a_say_in_redrawn_clips_alone(path, tmp_path):
    plain = recipe(path, tmp_path, share=0.5)
    task = make_task(plain.replace(loss={"adversarial": 1.0, "adversarial_after": 0}))
    other = make_task(plain)
    modules = task.build()
    for each in (task, other):
        each.prepare(modules, lambda line: None)

    def gradient(each, step: int) -> torch.Tensor:
        draws = torch.Generator().manual_seed(0)
        own = list(modules["video_decoder"].parameters())
        loss, _ = each.loss(modules, each.batch(step, 0, 1), draws)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)])

    for step in range(8):
        alike = torch.allclose(gradient(task, step), gradient(other, step), rtol=1e-3, atol=1e-6)
        assert alike == ("latents" not in task.batch(step, 0, 1))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"strength": [0.5, 0.2]}, "from less to more"),
        ({"strength": [0.0, 0.2]}, "within 0 and 1"),
        ({"share": 1.5}, "share is 1.5"),
        ({"share": 0.0}, "share is 0"),
        ({"num": -1}, "num is -1"),
        ({"num": 0, "num_full": 0}, "leaves no clips"),
        ({"number": 5}, "number"),
    ],
)
def test_nonsense_about_redrawn_clips_is_refused(path, tmp_path, wanted, said):
    made = recipe(path, tmp_path)
    with pytest.raises(UsageError, match=said):
        make_task(made.replace(data=made.data | {"redrawn": wanted}))


def test_more_frames_than_a_clip_has_are_refused(path, tmp_path):
    made = recipe(path, tmp_path)
    with pytest.raises(UsageError, match="that are redrawn have"):
        make_task(made.replace(data=made.data | {"num_frames": [2, 40]}))


def test_a_model_that_makes_no_whole_clips_is_refused(path, tmp_path):
    folder = Path(shutil.copytree(path, tmp_path / "part"))
    leave(folder, "vae")
    with pytest.raises(UsageError, match="has no transformer, text_encoder, interpolation"):
        make_task(recipe(folder, tmp_path))


def test_less_noise_than_any_step_has_is_refused_before_anything_is_drawn(path, tmp_path):
    made = recipe(path, tmp_path)
    wanted = made.data["redrawn"] | {"strength": [0.01, 0.9]}
    with pytest.raises(UsageError, match=r"data\.redrawn\.strength begins at 0\.01") as told:
        make_task(made.replace(data=made.data | {"redrawn": wanted}))
    assert told.value.why.startswith("of 3 steps the last begins at")
    assert "--" not in " ".join(told.value.lines())


@pytest.mark.usefixtures("few_together")
def test_a_run_goes_on_with_the_model_that_drew_its_clips_alone(path, tmp_path):
    folder = Path(shutil.copytree(path, tmp_path / "model"))
    made = recipe(folder, tmp_path / "cache")
    train(made, tmp_path / "run", device="cpu")
    change(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UsageError, match="other frozen networks"):
        train(made.replace(steps=3), tmp_path / "run", device="cpu")
    assert not make_task(made.replace(data={**made.data, "redrawn": None})).depends_on()


@pytest.mark.usefixtures("few_together")
def test_all_processes_get_as_many_clips(path, tmp_path):
    """Whatever the sizes come to: 24 of 40 × 64 in four processes are 6 of 80 × 128."""
    made = recipe(path, tmp_path).replace(batch_size=24)
    task = make_task(made.replace(data=made.data | {"sizes": [[16, 32]]}))
    task.prepare(task.build(), lambda line: None)
    counts = [len(task.batch(0, rank, 4)["latents"]) for rank in range(4)]
    assert len(set(counts)) == 1 and counts[0] >= 1
