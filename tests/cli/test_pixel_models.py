"""Commands on a model that makes pixels: no autoencoder anywhere, and the pipe is `generate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from vidgen.io.video import read_video

PROMPT = "a red ball bounces"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> str:
    return str(tiny.pixels(tmp_path_factory.mktemp("pixels") / "model", tiny_model))


def test_prompt_to_mp4_by_pipe_and_at_once(vidgen, folder) -> None:
    made = vidgen("sample", "--model", folder, "--prompt", PROMPT, "--seed", "3")
    assert made.code == 0 and "keyframes alone" not in made.err, made.err
    larger = vidgen("upsample", "--model", folder, stdin=made.out)
    assert larger.code == 0, larger.err
    ran = vidgen("decode", "-o", "pipe.mp4", stdin=larger.out)  # with no model at all
    assert ran.code == 0, ran.err
    ran = vidgen("generate", PROMPT, "--model", folder, "--seed", "3", "-o", "once.mp4")
    assert ran.code == 0, ran.err
    pipe, once = (read_video(Path(name))[0] for name in ("pipe.mp4", "once.mp4"))
    assert pipe.shape == (3, 12, 32, 3)
    assert (pipe == once).all()


def test_plans_and_refusals(vidgen, folder) -> None:
    assert "latent space  pixels" in vidgen("models", "show", folder).text
    ran = vidgen("generate", PROMPT, "--model", folder, "--dry-run")
    assert ran.code == 0 and "none: pixels are converted" in ran.text, ran.err
    made = vidgen("sample", "--model", folder, "--prompt", PROMPT).out
    for words, code, said in (
        (("--scale", "8"), 2, "makes sides 2 times as long"),
        (("--noise-level", "0.9"), 2, "was trained on 0 to 0.5"),
    ):
        ran = vidgen("upsample", "--model", folder, *words, stdin=made)
        assert ran.code == code and said in ran.err
    plain = vidgen("upsample", "--model", folder, "--method", "bicubic", stdin=made)
    assert plain.code == 0, plain.err
