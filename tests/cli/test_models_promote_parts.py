"""`vidgen models promote` of parts: they go into the model in place, if they are of its autoencoder
and come no further from rendered clips than what they replace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from json_schema import faults

from tests.tiny import change, leave
from vidgen.cli.models import SCHEMAS
from vidgen.cli.models_promote_parts import _undrawn
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.stages import part_model as bench
from vidgen.stages.rendered import clips_of
from vidgen.systems import base, save

WEIGHTS = "diffusion_pytorch_model.safetensors"


def decoder(folder: Path) -> None:
    """Give a model a video decoder of random weights."""
    config = MoVQConfig(
        channels=4, widths=(8, 8, 8), blocks=1, attention=(), patch=2, groups=4, temporal="conv1d"
    )
    settings = {"_class_name": "MoVQDecoder", "stride": config.stride, **config.to_dict()}
    torch.manual_seed(3)
    save.write_component(folder / "video_decoder", settings, MoVQDecoder(config))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"video_decoder": save.CLASSES["video_decoder"]})
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def place(tiny_model: Path, tmp_path: Path, monkeypatch) -> Path:
    """The shipped model: whole, with an upsampler and a card, but without interpolation."""
    place = Path(shutil.copytree(tiny_model, tmp_path / "shipped" / "world"))
    leave(place, "scheduler", "text_encoder", "tokenizer", "transformer", "vae", "upsampler")
    (place / "README.md").write_text("the card\n")
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")
    return place


@pytest.fixture
def candidate(tiny_model: Path, tmp_path: Path) -> Path:
    """What training an interpolation leaves: it, and the autoencoder."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run" / "model"))
    leave(folder, "interpolation", "vae")
    return folder


@pytest.fixture
def scored(monkeypatch):
    """`scored(new, without, old)`: dB that each is said to have; what was tried, in order."""

    def set_scores(new: float, without: float, old: float = 0.0) -> list[str]:
        looks: list[str] = []

        def try_part(folder, part, scenes, geometry, *, baseline=False, **kwargs) -> list[float]:
            here = "without" if baseline else folder.path.parent.name
            looks.append(f"{part} {here} {geometry.num_frames} {geometry.width}")
            value = {"without": without, "shipped": old, "run": new}[here]
            return [value] * len(scenes)

        monkeypatch.setattr(bench, "try_part", try_part)
        return looks

    return set_scores


@pytest.fixture
def promote(vidgen, place, candidate):
    return lambda *words: vidgen("models", "promote", str(candidate), "--num", "2", *words)


def test_a_better_part_goes_into_the_model(promote, scored, place, candidate) -> None:
    looks, before = scored(32.0, 31.0), contents(place)
    ran = promote()
    assert ran.code == 0, ran.err
    assert f"{place} now has the interpolation of {candidate}" in ran.err
    assert looks == ["interpolation without 9 32", "interpolation run 9 32"]
    after = contents(place)
    new = {name for name in after if name.startswith("interpolation/")}
    assert {n: after[n] for n in new} == {n: contents(candidate)[n] for n in new} and new
    kept = after.keys() - new - {"model_index.json"}
    assert {n: after[n] for n in kept} == {
        n: before[n] for n in before.keys() - {"model_index.json"}
    }
    index = json.loads(after["model_index.json"])
    assert index["interpolation"] == ["vidgen", "UNet"] and index["name"] == "world"
    assert index.keys() - {"interpolation"} == json.loads(before["model_index.json"]).keys()
    assert promote().code == 2  # it is there now


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (
            (30.0, 31.0, 0.0),
            "interpolation is at 30.00 dB from what was rendered, blended neighbors",
        ),
        ((32.0, 31.0, 33.0), "the one in place at 33.00 dB"),
    ],
)
def test_a_worse_part_is_refused(promote, scored, place, tiny_model, scores, said) -> None:
    if scores[2]:
        shutil.copytree(tiny_model / "interpolation", place / "interpolation")
        change(place / "interpolation" / WEIGHTS)
        index = json.loads((place / "model_index.json").read_text())
        index["interpolation"] = save.CLASSES["interpolation"]
        (place / "model_index.json").write_text(json.dumps(index))
    scored(*scores)
    before = contents(place)
    ran = promote("--json")
    assert ran.code == 4 and said in ran.err and "stays as it is" in ran.err
    report = json.loads(ran.text)
    assert faults(report, SCHEMAS["vidgen.models-promote/1"]) == []
    (row,) = report["parts"]
    assert (row["psnr"], row["baseline"]["psnr"]) == scores[:2] and not report["promoted"]
    assert (row["in_place"] is not None) == bool(scores[2])
    assert contents(place) == before


def test_a_part_of_another_autoencoder_is_refused_untried(
    promote, scored, place, candidate, other_model
) -> None:
    looks, before = scored(32.0, 31.0), contents(place)
    shutil.rmtree(candidate / "vae")
    shutil.copytree(other_model / "vae", candidate / "vae")
    for more in ((), ("-n",)):
        ran = promote(*more)
        assert ran.code == 3 and "latents of another autoencoder" in ran.err
    assert (looks, contents(place)) == ([], before)


def test_a_part_needs_a_model_to_go_into(promote, scored) -> None:
    looks = scored(32.0, 31.0)
    ran = promote("--as", "second")
    assert ran.code == 3 and "is no model for interpolation to go into" in ran.err and not looks


def test_a_dry_run_tells_and_changes_nothing(promote, scored, place) -> None:
    looks, before = scored(32.0, 31.0), contents(place)
    ran = promote("-n")
    assert ran.code == 0 and "interpolation: would be tried on 2 rendered clips" in ran.text
    assert (looks, contents(place)) == ([], before)


def test_a_new_transformer_leaves_the_parts_there(
    vidgen, scored, place, tiny_model, tmp_path, monkeypatch
) -> None:
    from vidgen.metrics.world_accuracy import Mark
    from vidgen.stages import judge_model

    monkeypatch.setattr(judge_model, "judge_model", lambda *a, **k: [Mark((), True)] * 2)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run" / "whole"))
    leave(folder, "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    change(folder / "transformer" / WEIGHTS)
    looks, before = scored(0.0, 0.0), contents(place)
    ran = vidgen("models", "promote", str(folder), "--num", "2")
    assert ran.code == 0 and not looks, ran.err
    after = contents(place)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {f"transformer/{WEIGHTS}", "model_index.json"}  # which has another name
    assert after.keys() == before.keys()
    parts = [json.loads(files["model_index.json"]).keys() for files in (before, after)]
    assert parts[0] == parts[1]


@pytest.mark.parametrize(("autoencoder", "width"), [("the same", 64), ("another", 32)])
def test_a_decoder_is_tried_at_the_size_that_a_kept_upsampler_makes(
    vidgen, scored, place, tiny_model, other_model, tmp_path, monkeypatch, autoencoder, width
) -> None:
    """An upsampler of another autoencoder goes, and with it the larger size."""
    from vidgen.metrics.world_accuracy import Mark
    from vidgen.stages import judge_model

    monkeypatch.setattr(judge_model, "judge_model", lambda *a, **k: [Mark((), True)] * 2)
    source = tiny_model if autoencoder == "the same" else other_model
    folder = Path(shutil.copytree(source, tmp_path / "run" / "whole"))
    leave(folder, "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    decoder(folder)
    looks = scored(32.0, 31.0)
    ran = vidgen("models", "promote", str(folder), "--num", "2")
    assert ran.code == 0, ran.err
    assert looks == [f"video_decoder {way} 9 {width}" for way in ("without", "run")]
    assert (place / "upsampler").exists() == (autoencoder == "the same")


@pytest.mark.parametrize("upsampler", ["in place", "of the run", "none"])
def test_a_decoder_is_tried_on_what_its_model_makes(
    vidgen, tiny_model, tmp_path, monkeypatch, upsampler
) -> None:
    """On no latents of the encoder, each clip made once, as large as the model will make them."""
    from vidgen.stages import redraw as made

    place = Path(shutil.copytree(tiny_model, tmp_path / "shipped" / "fast"))
    whole = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae", "interpolation")
    leave(place, *whole, *(["upsampler"] if upsampler == "in place" else []))
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run" / "model"))
    leave(folder, "vae", *(["upsampler"] if upsampler == "of the run" else []))
    decoder(folder)
    asked, decoded = [], []
    redraw, decode = made.redraw, bench.decode

    def redrawn(scenes, captions, model, *more, **kwargs):
        asked.append((len(scenes), captions))
        return redraw(scenes, captions, model, *more, **kwargs)

    def seen(records, model, **kwargs):
        records = list(records)
        decoded.append((kwargs["which"], [r.torch("latents") for r in records]))
        return decode(records, model, **kwargs)

    monkeypatch.setattr(made, "redraw", redrawn)
    monkeypatch.setattr(bench, "decode", seen)
    ran = vidgen("models", "promote", str(folder), "--as", "fast", "--num", "2", "--json")
    assert ran.code in (0, 4), ran.err
    (n, captions) = asked.pop()
    assert n == 2 and all(captions) and not asked
    last = [latents for which, latents in decoded[-2:]]
    assert [which for which, _ in decoded[-2:]] == ["image", "video"]
    assert all(torch.equal(a, b) for a, b in zip(*last, strict=True))
    width = 4 if upsampler == "none" else 8
    assert last[0][0].shape[1:] == (9, width // 2, width)
    row = json.loads(ran.text)["parts"][-1]
    assert row["part"] == "video_decoder" and row["clips"] == 2


def test_a_decoder_without_the_rest_is_tried_on_the_encoders_latents_and_that_is_said(
    vidgen, place, tiny_model, tmp_path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run" / "model"))
    leave(folder, "vae")
    decoder(folder)
    ran = vidgen("models", "promote", str(folder), "--num", "2")
    assert ran.code in (0, 4) and "without interpolation no clip can be redrawn" in ran.err


@pytest.mark.parametrize("autoencoder", ["the same", "another"])
def test_decoders_are_compared_on_one_kind_of_clips(
    vidgen, place, tiny_model, other_model, tmp_path, monkeypatch, autoencoder
) -> None:
    """The model in place can't redraw clips, and the candidate can: all decoders of one autoencoder
    get what the candidate makes, and two of different ones what their encoders make."""
    from vidgen.metrics.world_accuracy import Mark
    from vidgen.stages import judge_model

    monkeypatch.setattr(judge_model, "judge_model", lambda *a, **k: [Mark((), True)] * 2)
    source = tiny_model if autoencoder == "the same" else other_model
    folder = Path(shutil.copytree(source, tmp_path / "run" / "whole"))
    whole = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae", "interpolation")
    leave(folder, *whole)
    decoder(folder)
    decoder(place)
    change(place / "video_decoder" / WEIGHTS)
    decoded, decode = [], bench.decode

    def seen(records, model, **kwargs):
        records = list(records)
        decoded.append((kwargs["which"], model.path.name, records))
        return decode(records, model, **kwargs)

    monkeypatch.setattr(bench, "decode", seen)
    ran = vidgen("models", "promote", str(folder), "--num", "2")
    assert ran.code in (0, 4), ran.err
    ways = [("image", "whole"), ("video", "world"), ("video", "whole")]
    assert [(which, name) for which, name, _ in decoded[-3:]] == ways
    clips = [[r.torch("latents") for r in records] for *_, records in decoded[-3:]]
    makers = {r.log[-1]["tool"].split()[-1] for *_, records in decoded[-3:] for r in records}
    assert len(makers) == 1
    assert all(torch.equal(a, b) for a, b in zip(clips[0], clips[2], strict=True))
    same = all(torch.equal(a, b) for a, b in zip(clips[0], clips[1], strict=True))
    assert same == (autoencoder == "the same")
    said = "without interpolation no clip can be redrawn" in ran.err
    assert said == (autoencoder == "another")


def test_models_that_show_clips_of_two_sizes_are_not_compared_on_them(tiny_model, tmp_path) -> None:
    small = Path(shutil.copytree(tiny_model, tmp_path / "small"))
    whole = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae", "interpolation")
    leave(small, *whole)
    one, two = base.ModelFolder(tiny_model), base.ModelFolder(small)
    assert not _undrawn([one, one]) and not _undrawn([two])
    assert "of another size" in _undrawn([one, two])


def test_a_model_of_too_few_steps_to_redraw_is_refused_before_anything_is_tried(
    vidgen, scored, tiny_model, tmp_path, monkeypatch
) -> None:
    place = Path(shutil.copytree(tiny_model, tmp_path / "shipped" / "world"))
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")
    file = place / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_inference_steps": 1}))
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run" / "model"))
    leave(folder, "vae")
    decoder(folder)
    looks, before = scored(32.0, 31.0), contents(place)
    ran = vidgen("models", "promote", str(folder), "--num", "2")
    assert ran.code == 3 and "can't redraw clips with a strength of 0.5" in ran.err
    assert "of 1 steps the last begins at 1" in ran.err and "--strength" not in ran.err
    assert (looks, contents(place)) == ([], before)


def test_parts_of_another_autoencoder_go_and_that_is_said(
    vidgen, place, other_model, tmp_path, monkeypatch
) -> None:
    from vidgen.metrics.world_accuracy import Mark
    from vidgen.stages import judge_model

    monkeypatch.setattr(judge_model, "judge_model", lambda *a, **k: [Mark((), True)] * 2)
    folder = Path(shutil.copytree(other_model, tmp_path / "run" / "whole"))
    leave(folder, "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    ran = vidgen("models", "promote", str(folder), "--num", "2")
    assert ran.code == 0 and "not kept" in ran.err and "upsampler" in ran.err
    assert not (place / "upsampler").exists()
    assert "upsampler" not in json.loads((place / "model_index.json").read_text())


@pytest.mark.parametrize("part", ["interpolation", "interpolation_masked", "video_decoder"])
def test_real_clips_are_looked_at(tiny_model, tmp_path, part) -> None:
    """Of random weights: finite, the same again, another figure than the baseline's."""
    from vidgen.cli.models_promote import scenes

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    decoder(folder)
    model = base.ModelFolder(folder)
    clips = clips_of(model.geometry)
    assert (clips.num_frames, clips.fps, clips.width) == (9, 8.0, 32)
    made, again, without = (
        bench.try_part(model, part, scenes(2, "basic"), clips, baseline=b)
        for b in (False, False, True)
    )
    assert made == again and len(made) == 2 and made != without
    assert all(5 < db < 60 for db in made + without)
