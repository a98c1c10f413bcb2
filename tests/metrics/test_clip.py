"""CLIP, tiny and random, against transformers' own processor and model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)
from transformers.utils import logging

from vidgen.errors import InputError
from vidgen.metrics.clip import load_clip
from vidgen.metrics.extractors import make

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
WORDS = ["red", "ball", "rolls"]


def _processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP whose text tower reads ten tokens; letters and three words."""
    folder = tmp_path_factory.mktemp("clip")
    logging.disable_progress_bar()
    letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    vocab = {w: i for i, w in enumerate((*letters, *(c + "</w>" for c in letters)))}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left = word[0]
        for i, c in enumerate(word[1:], 1):
            right = c + "</w>" if i == len(word) - 1 else c
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            vocab.setdefault(left, len(vocab))
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    start, end = len(vocab) - 2, len(vocab) - 1
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **SIZES, "vocab_size": len(vocab), "max_position_embeddings": 10,
            "bos_token_id": start, "eos_token_id": end, "pad_token_id": end,
        },
        vision_config=VISION, projection_dim=12,
    )  # fmt: skip
    model = CLIPModel(config)
    with torch.no_grad():  # as drawn, all pictures look alike to it
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(5)
    model.save_pretrained(folder)
    _processor().save_pretrained(folder)
    CLIPTokenizer(vocab=vocab, merges=merges).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    made = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, 40, 56, 3), dtype=torch.uint8, generator=made)


def test_frames_are_those_of_transformers(folder: Path, frames: torch.Tensor) -> None:
    model = CLIPModel.from_pretrained(folder)
    pixels = _processor()(images=list(frames.numpy()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values=pixels, input_ids=torch.tensor([[0]])).image_embeds
    made = load_clip(folder, CPU).frames(frames)
    assert made.shape == (5, 12) and made.dtype == torch.float32
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(5))
    assert (made[0] - made[1]).abs().max() > 1e-2  # the test can tell frames apart


def test_the_folders_own_settings_decide_pixels(
    folder: Path, frames: torch.Tensor, tmp_path: Path
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    path = other / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_mean": [0.1, 0.1, 0.1]}))
    a, b = load_clip(folder, CPU), load_clip(other, CPU)
    assert a.settings["preprocessing"]["size"] == {"shortest_edge": 32}
    assert a.settings != b.settings and a.sha256 == b.sha256
    assert (a.frames(frames) - b.frames(frames)).abs().max() > 1e-4
    json.dumps(a.settings)


def test_texts_are_those_of_transformers(folder: Path) -> None:
    texts = ["red ball", "a ball rolls", "red"]
    model, clip = CLIPModel.from_pretrained(folder), load_clip(folder, CPU)
    tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens, pixel_values=torch.zeros(1, 3, 32, 32)).text_embeds
    torch.testing.assert_close(clip.texts(texts), expected, atol=1e-6, rtol=0)
    assert (expected[0] - expected[2]).abs().max() > 1e-2


def test_long_texts_are_cut_and_named(folder: Path) -> None:
    clip = load_clip(folder, CPU)
    fits, long = "red ball rolls red ball rolls red ball", "red ball " * 4 + "rolls"
    assert clip.context == 10
    assert clip.truncated([fits, long, "red"]) == [long]
    cut, more = clip.texts([long, long + " rolls"])
    assert torch.equal(cut, more)  # what comes after is never seen
    assert not torch.equal(*clip.texts([fits, fits.replace("red", "ball")]))


def test_a_text_does_not_depend_on_its_neighbors(folder: Path) -> None:
    clip = load_clip(folder, CPU)
    assert torch.equal(clip.texts(["red", "a ball rolls"])[0], clip.texts(["red"])[0])


def test_a_clips_feature_is_the_mean_of_its_frames(folder: Path, frames: torch.Tensor) -> None:
    extractor = make("clip", weights=folder, device=CPU)
    clips = torch.stack((frames, frames.flip(0)))
    features = extractor(clips)
    assert features.shape == (2, extractor.dim)
    expected = load_clip(folder, CPU).frames(frames).mean(dim=0)
    torch.testing.assert_close(features, expected.expand(2, -1), atol=1e-6, rtol=0)
    assert extractor.settings["extractor"] == "clip"
    assert extractor.settings["weights_sha256"] == extractor.sha256


@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPVisionModelWithProjection])
def test_a_tower_of_images_alone(kind: type, frames: torch.Tensor, tmp_path: Path) -> None:
    model = kind(CLIPVisionConfig(**VISION, projection_dim=12)).eval()
    model.save_pretrained(tmp_path)
    _processor().save_pretrained(tmp_path)
    clip = load_clip(tmp_path, CPU)
    pixels = _processor()(images=list(frames.numpy()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(pixel_values=pixels)
    expected = out.pooler_output if kind is CLIPVisionModel else out.image_embeds
    made = clip.frames(frames)
    torch.testing.assert_close(made, F.normalize(expected, dim=-1), atol=1e-6, rtol=0)
    assert clip.dim == made.shape[1]
    assert not clip.reads_text and clip.truncated(["red"]) == []
    with pytest.raises(InputError, match="reads no text"):
        clip.texts(["red"])


def _without(name: str):
    return lambda folder: (folder / name).unlink()


def _of_another_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "siglip"}')


def _without_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("config.json"), "config.json can't be read"),
        (_without("model.safetensors"), "has neither model.safetensors"),
        (_without("preprocessor_config.json"), "has no preprocessor_config.json"),
        (_of_another_type, "of type 'siglip'"),
        (_without_a_tensor, "visual_projection.weight"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no weights"), "not a CLIP"),
        (lambda f: (f / "preprocessor_config.json").write_text("{"), "not a CLIP"),
    ],
)
def test_what_is_no_clip(folder: Path, tmp_path: Path, spoil, said: str) -> None:
    bad = shutil.copytree(folder, tmp_path / "bad")
    spoil(bad)
    with pytest.raises(InputError) as error:
        load_clip(bad, CPU)
    assert said in "\n".join(error.value.lines())


def test_a_tokenizer_may_be_missing(folder: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    bare = shutil.copytree(
        folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "vocab*", "merges*")
    )
    clip = load_clip(bare, CPU)
    assert not clip.reads_text
    assert torch.equal(clip.frames(frames), load_clip(folder, CPU).frames(frames))


def test_what_no_weight_says_is_in_the_settings(
    folder: Path, frames: torch.Tensor, tmp_path: Path
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "relu"
    (other / "config.json").write_text(json.dumps(config))
    a, b = load_clip(folder, CPU), load_clip(other, CPU)
    assert (a.frames(frames) - b.frames(frames)).abs().max() > 1e-4
    assert a.sha256 == b.sha256 and a.settings != b.settings
