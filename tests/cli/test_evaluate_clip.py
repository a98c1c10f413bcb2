"""`vidgen evaluate-clip`, with a tiny random CLIP, against embeddings by transformers itself."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from json_schema import faults

from vidgen.cli.evaluate_clip import SCHEMAS
from vidgen.io.record import Record
from vidgen.io.stream import write_stream
from vidgen.metrics.clipsim import clipsim, first_frame_consistency, frame_consistency

PROMPTS = {"a": "red ball", "b": "blue cube"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Letters are its tokens, sixteen at most."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("clip")
    words = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    vocab = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    sizes = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    end = len(vocab) - 1
    torch.manual_seed(0)
    net = CLIPModel(CLIPConfig(
        text_config={**sizes, "vocab_size": len(vocab), "max_position_embeddings": 16,
                     "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end},
        vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=12,
    ))  # fmt: skip
    with torch.no_grad():  # as drawn, all pictures look alike to it
        for p in net.parameters():
            if p.ndim > 1:
                p.mul_(5)
    net.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return str(folder)


def frames(seed: int, t: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (t, 32, 40, 3)).astype(np.uint8)


@pytest.fixture
def clips(vidgen) -> dict[str, np.ndarray]:
    """c.vgs: clips that know their prompts."""
    made = {id: frames(i) for i, id in enumerate(PROMPTS)}
    write_stream(
        [Record.make("frames", id, {"frames": f}, {"fps": 4, "prompt": PROMPTS[id]})
         for id, f in made.items()],
        "c.vgs",
    )  # fmt: skip
    return made


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert faults(found, SCHEMAS["vidgen.report/1"]) == []
    return found


def test_scores_are_cosines_of_what_transformers_embeds(vidgen, clips, model) -> None:
    from transformers import CLIPModel, CLIPProcessor

    net, processor = CLIPModel.from_pretrained(model), CLIPProcessor.from_pretrained(model)
    expected = []
    for id, clip in clips.items():
        words = processor(images=list(clip), text=PROMPTS[id], return_tensors="pt")
        with torch.no_grad():
            out = net(**words)
        images, text = out.image_embeds.double(), out.text_embeds[0].double()
        cos = F.cosine_similarity
        near = [float(cos(images[i], images[i + 1], dim=0)) for i in range(3)]
        first = [float(cos(images[0], images[i], dim=0)) for i in range(1, 4)]
        fits = [float(cos(x, text, dim=0)) for x in images]
        expected.append([np.mean(fits), np.mean(near), np.mean(first)])
    found = report(vidgen("evaluate-clip", "c.vgs", "--model", model, "--json"))
    names = ["clipsim", "frame-consistency", "first-frame-consistency"]
    assert list(found["scores"]) == [*names, "failed"]
    for item, values in zip(found["items"], expected, strict=True):
        assert [item[name] for name in names] == pytest.approx(values, abs=1e-5)
    for name, value in zip(names, np.mean(expected, 0), strict=True):
        assert found["scores"][name]["value"] == pytest.approx(value, abs=1e-5)
    assert abs(expected[0][0] - expected[1][0]) > 1e-3
    assert found["settings"]["scale"] == "cosine, -1 to 1"
    assert len(found["settings"]["model"]["weights_sha256"]) == 64


def test_prompts_of_a_file_go_before_the_clips_own(vidgen, clips, model) -> None:
    words = ("evaluate-clip", "c.vgs", "--model", model, "--json", "--metrics", "clipsim")
    rows = [{"id": "a", "prompt": PROMPTS["b"]}, {"id": "b", "prompt": PROMPTS["a"]},
            {"id": "nobody", "prompt": "x"}]  # fmt: skip
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own, swapped = report(vidgen(*words)), report(vidgen(*words, "--prompts", "rows.jsonl"))
    assert [i["prompt"] for i in swapped["items"]] == [PROMPTS["b"], PROMPTS["a"]]
    assert own["items"][0]["clipsim"] != swapped["items"][0]["clipsim"]
    assert swapped["warnings"] == ["1 prompts have no clip: nobody"]


def test_a_sample_belongs_to_the_row_of_its_prompt(vidgen, model) -> None:
    write_stream([Record.make("frames", "a-s7", {"frames": frames(0)}, {})], "s.vgs")
    Path("rows.jsonl").write_text(json.dumps({"id": "a", "prompt": "red ball"}))
    ran = vidgen("evaluate-clip", "s.vgs", "--model", model, "--prompts", "rows.jsonl", "--json")
    assert report(ran)["items"][0]["prompt"] == "red ball"


def test_long_prompts_are_counted(vidgen, clips, model) -> None:
    rows = [{"id": "a", "prompt": "a red ball that goes on and on"}, {"id": "b", "prompt": "cube"}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ran = vidgen("evaluate-clip", "c.vgs", "--model", model, "--prompts", "rows.jsonl", "--json")
    found = report(ran)
    assert found["details"]["truncated"] == 1
    assert [i["truncated"] for i in found["items"]] == [True, False]
    assert "1 of 2 prompts are longer than the 16 tokens" in found["warnings"][0]


def test_a_still_clip_is_consistent(vidgen, model) -> None:
    still = frames(0, 1).repeat(3, 0)
    write_stream([Record.make("frames", "still", {"frames": still}, {})], "s.vgs")
    names = "frame-consistency,first-frame-consistency"
    words = ("evaluate-clip", "s.vgs", "--model", model, "--metrics", names)
    found = report(vidgen(*words, "--json"))
    assert [s["value"] for s in found["scores"].values()] == pytest.approx([1, 1, 0], abs=1e-6)
    assert vidgen(*words, "--max", "frame-consistency=0.5").code == 4


def test_clips_that_cannot_be_scored_are_counted(vidgen, model) -> None:
    write_stream(
        [Record.make("frames", "a", {"frames": frames(0)}, {"prompt": "ball"}),
         Record.make("frames", "b", {"frames": frames(1)}, {}),
         Record.make("frames", "c", {"frames": frames(1, 1)}, {"prompt": "ball"})],
        "s.vgs",
    )  # fmt: skip
    words = ("evaluate-clip", "s.vgs", "--model", model)
    ran = vidgen(*words)
    assert ran.code == 3 and "clip `b` does not know its prompt" in ran.err
    found = report(vidgen(*words, "--skip-bad", "--json"))
    assert found["scores"]["failed"]["value"] == found["inputs"][0]["left_out"] > 0
    assert sum("left out" in text for text in found["warnings"]) == 1
    assert vidgen(*words, "--skip-bad", "--max", "failed=0").code == 4
    assert found["inputs"][0] | {"sha256": ""} == {
        "role": "made", "name": "s.vgs", "clips": 1, "sha256": "", "left_out": 2,
    }  # fmt: skip
    assert "clip `c` has one frame" in found["details"]["left_out"]["made"][1]


@pytest.mark.parametrize(
    "words, code, said",
    [
        ([], 2, "--model is missing"),
        (["--model", "nowhere"], 2, "nowhere: no such folder"),
        (["--model", "."], 3, "a CLIP is a folder that has one"),
        (["--model", ".", "--metrics", "taste"], 2, "taste: there is no such metric"),
        (["--model", ".", "--prompts", "none.jsonl"], 3, "none.jsonl: cannot be read"),
        (["--model", ".", "--metrics", "frame-consistency", "--prompts", "x"], 2,
         "clipsim is not among --metrics"),
        (["--model", ".", "--min", "is=3"], 2, "there is no score `is` here"),
        (["--model", ".", "--metrics", "frame-consistency", "--min", "clipsim=0.3"], 2,
         "`clipsim` is not measured here"),
    ],
)  # fmt: skip
def test_mistakes(vidgen, clips, words, code, said) -> None:
    ran = vidgen("evaluate-clip", "c.vgs", *words)
    assert ran.code == code
    assert said in ran.err


def test_closed_forms() -> None:
    x = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]])
    assert clipsim(x, torch.tensor([0.0, 1])) == pytest.approx((0 + 0.8 + 1) / 3)
    assert frame_consistency(x) == pytest.approx((0.6 + 0.8) / 2)
    assert first_frame_consistency(x) == pytest.approx((0.6 + 0) / 2)
    with pytest.raises(ValueError, match="one frame"):
        frame_consistency(x[:1])
