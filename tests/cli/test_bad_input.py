"""What people do wrong, and what goes wrong around them: one clear line, the right code, nothing
finished lost, nothing half-written left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vidgen.errors import Exit
from vidgen.io.stream import read_stream, write_stream

VIDGEN = [sys.executable, "-m", "vidgen"]
HOSTILE = Path(__file__).parents[1] / "hostile"


@pytest.fixture
def run(vidgen, tiny_model, monkeypatch):
    """`vidgen`, on the tiny model."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    return vidgen


@pytest.fixture
def latents(run, tmp_path) -> Path:
    """latents.vgs, and text.vgs that it was made from."""
    assert run("encode-text", "a red ball", "-o", "text.vgs").code == 0
    assert run("sample-keyframes", "text.vgs", "-o", "latents.vgs").code == 0
    return tmp_path / "latents.vgs"


def refused(ran, code: Exit, *words: str) -> None:
    """It ended with the code, said all the words, and nothing that looks like a traceback."""
    assert ran.code == code, ran.err
    assert ran.err.startswith("vidgen ")
    assert "Traceback" not in ran.err and len(ran.err.splitlines()) <= 6
    for word in words:
        assert word in ran.err


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (b"", Exit.BAD_INPUT, "no prompt in it"),
        (b"\n  \n", Exit.BAD_INPUT, "no prompt in it"),
        (b"a red\0ball\n", Exit.BAD_INPUT, "line 1: `prompt` has a NUL byte at character 5"),
        (b"a red ball\n\xff\xfe\n", Exit.BAD_INPUT, "not UTF-8 text at byte 11"),
        (b'{"prompt": "a"}\n{"prompt": 3}\n', Exit.BAD_INPUT, "line 2: `prompt` is 3"),
        (b'{"prompt": "a"}\n{"prompt": "b"\n', Exit.BAD_INPUT, "line 2: not JSON"),
        (b'{"promt": "a"}\n', Exit.BAD_INPUT, "no `prompt` in the row"),
        (b'{"prompt": "a", "id": "x/y"}\n', Exit.BAD_INPUT, "id `x/y` can't name a record"),
        (b'{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', Exit.BAD_INPUT,
         "that of line 1 already"),
        (b'{"prompt": "a", "seed": -1}\n', Exit.BAD_INPUT, "`seed` is -1"),
        (b'{"prompt": "a", "seed": true}\n', Exit.BAD_INPUT, "`seed` is true"),
        (b'{"prompt": "a", "latent_space": "x"}\n', Exit.BAD_INPUT, "written by stages"),
    ],
)  # fmt: skip
def test_prompt_files(run, tmp_path, text, code, words):
    (tmp_path / "prompts").write_bytes(text)
    refused(run("encode-text", "-i", "prompts", "-o", "out.vgs"), code, words)
    assert not (tmp_path / "out.vgs").exists()
    refused(run("generate", "-o", "out.mp4", stdin=text), code, "standard input")


def test_a_prompt_file_that_is_not_there_or_a_folder(run, tmp_path):
    refused(run("encode-text", "-i", "none", "-o", "o"), Exit.USAGE, "none: no such file")
    refused(run("encode-text", "-i", ".", "-o", "o"), Exit.USAGE, "a folder")
    refused(run("encode-text", "a", "-i", "x", "-o", "o"), Exit.USAGE, "choose one of the two")
    ran = run("encode-text", "-o", "o", terminal=("stdin",))
    assert ran.code == Exit.USAGE and "standard input is a terminal" in ran.err
    assert "Usage:" in ran.err


def test_a_record_file_as_prompts(run, latents):
    refused(run("encode-text", "-i", "latents.vgs", "-o", "o"), Exit.BAD_INPUT, "record stream")


def test_ten_thousand_words_are_cut_with_a_warning(run, tmp_path):
    ran = run("encode-text", "ball " * 10_000, "-o", "out.vgs")
    assert ran.code == 0
    assert "its end is cut" in ran.err and len(ran.err) < 1000


def test_unknown_words_are_a_warning_not_an_error(run):
    ran = run("encode-text", "a zebra bal", "-o", "out.vgs")
    assert ran.code == 0
    assert "does not know: zebra" in ran.err and "bal (near: ball" in ran.err


# --- records --------------------------------------------------------------------------------------


def test_the_wrong_kind_is_refused(run, latents):
    refused(run("decode", "text.vgs", "-o", "x.mp4"), Exit.BAD_INPUT, "holds text", "latents")
    ran = run("decode", "-o", "x.mp4", stdin=(latents.parent / "text.vgs").read_bytes())
    refused(ran, Exit.BAD_INPUT, "holds text", "latents")
    refused(run("sample-keyframes", "latents.vgs", "-o", "x"), Exit.BAD_INPUT, "holds latents")


def test_latents_of_another_autoencoder(run, latents, other_model):
    ran = run("decode", "latents.vgs", "--model", str(other_model), "-o", "x.mp4")
    refused(ran, Exit.BAD_INPUT, "tiny-vae@", "other-vae@")


def faults() -> list[tuple[str, str]]:
    """Hostile files whose fault is in the first record, and words of the message."""
    rows = (HOSTILE / "expected.tsv").read_text().splitlines()[1:]
    table = [row.split("\t") for row in rows if row.strip()]
    return [(name, words) for name, whole, _, _, words in table if whole == "0"]


@pytest.mark.parametrize(("name", "words"), faults())
def test_hostile_records_into_decode(run, tmp_path, name, words):
    ran = run("decode", str(HOSTILE / f"{name}.vgs"), "-o", "x.mp4")
    refused(ran, Exit.BAD_INPUT, words)
    assert not list(tmp_path.glob("*.mp4"))


def test_a_cut_stream_keeps_what_was_finished_and_stays_cut(run, tmp_path):
    run("encode-text", "a red ball", "-o", "one.vgs")
    run("encode-text", "-i", "-", "-o", "two.vgs", stdin=b"a red ball\na blue cube\n")
    whole = (tmp_path / "two.vgs").read_bytes()
    ran = run("sample-keyframes", "-o", "-", stdin=whole[: len(whole) - 10])
    refused(ran, Exit.BAD_INPUT, "record 2")
    (tmp_path / "kept.vgs").write_bytes(ran.out)
    refused(run("decode", "kept.vgs", "-o", "x.mp4"), Exit.BAD_INPUT, "marked as the last")
    assert (tmp_path / "x.mp4").is_file()  # the first record was whole


def altered(path: Path, **changes) -> Path:
    """The record of the file with tensors replaced (or attrs, by `attrs=`), whole otherwise."""
    (record,) = read_stream(path)
    attrs = changes.pop("attrs", {})
    record = record.replace(tensors={k.replace("__", "."): x for k, x in changes.items()})
    record.attrs.update(attrs)
    out = path.with_name("altered.vgs")
    with pytest.MonkeyPatch.context() as patch:  # our own writer would refuse NaN
        patch.setattr("vidgen.io.record.bad_value", lambda name, blob: None)
        write_stream([record], out, force=True)
    return out


def test_nan_latents(run, latents):
    altered(latents, latents=torch.full((4, 3, 2, 4), float("nan")))
    ran = run("decode", "altered.vgs", "-o", "x.mp4")
    refused(ran, Exit.BAD_INPUT, "tensor `latents` of `a-red-ball` holds a NaN")


def test_records_that_are_whole_and_make_no_sense(run, latents):
    """They are refused before any weights load, not met in the middle of a network."""
    for changes, words in (
        ({"latents": torch.zeros(4, 2, 4)}, "`latents` is F32 [4, 2, 4]"),
        ({"latents": torch.zeros(3, 3, 2, 4)}, "this stage takes"),
        ({"latents": torch.zeros(4, 0, 2, 4)}, "this stage takes"),
        ({"latents": torch.zeros(4, 3, 2, 4, dtype=torch.int32)}, "is I32"),
        ({"attrs": {"height": "16"}}, "attribute `height` is '16'"),
        ({"attrs": {"width": None}}, "attribute `width` is None"),
    ):
        altered(latents, **changes)
        refused(run("decode", "altered.vgs", "-o", "x.mp4"), Exit.BAD_INPUT, words)
    text = latents.parent / "text.vgs"
    for changes, words in (
        ({"text__embeds": torch.zeros(3, 5)}, "`text.embeds` is F32 [3, 5]"),
        ({"text__mask": torch.ones(99, dtype=torch.bool)}, "`text.mask`"),
        ({"attrs": {"seed": "abc"}}, "its seed is 'abc'"),
    ):
        altered(text, **changes)
        ran = run("sample-keyframes", "altered.vgs", "-o", "x.vgs", "-f")
        refused(ran, Exit.BAD_INPUT, words)


def test_a_network_that_returns_nan_makes_no_video(run, tiny_model, tmp_path, monkeypatch):
    """`generate` writes no latents, and must notice all the same."""
    import vidgen.systems.world as world

    load = world.load_transformer

    def broken(folder):
        network = load(folder)
        network.final.bias[0] = float("nan")
        return network

    monkeypatch.setattr(world, "load_transformer", broken)
    ran = run("generate", "a red ball", "-o", "x.mp4")
    refused(ran, Exit.FAILED, "`latents` holds a NaN", "--dtype fp32")
    assert not (tmp_path / "x.mp4").exists()


def test_memory_that_runs_out_in_decode_is_met_with_smaller_chunks(run, latents, monkeypatch):
    from vidgen.nn.autoencoder import VideoAutoencoder

    decode = VideoAutoencoder.decode

    def short(self, z):
        if z.shape[2] > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return decode(self, z)

    assert run("decode", "latents.vgs", "-o", "whole.vgs").code == 0
    monkeypatch.setattr(VideoAutoencoder, "decode", short)
    ran = run("decode", "latents.vgs", "-o", "parts.vgs")
    assert ran.code == 0
    assert "out of memory: frames decoded at once from here on: 1" in ran.err
    whole, parts = (next(read_stream(latents.parent / f"{n}.vgs")) for n in ("whole", "parts"))
    assert (whole.numpy("frames") == parts.numpy("frames")).all()


def test_files_that_are_not_there_and_folders(run, tmp_path):
    for command in ("decode", "sample-keyframes", "inspect", "log", "check"):
        ran = run(command, "none.vgs", *(("-o", "x") if command in ("decode",) else ()))
        assert ran.code in (Exit.USAGE, Exit.BAD_INPUT) and "none.vgs" in ran.err, command
    refused(run("decode", ".", "-o", "x"), Exit.USAGE, "is a folder")


# --- models and devices ---------------------------------------------------------------------------


def test_models_that_are_not_there(run, tmp_path):
    refused(run("generate", "a", "--model", "nope", "-o", "x.mp4"), Exit.USAGE, "no model called")
    refused(run("generate", "a", "--model", ".", "-o", "x.mp4"), Exit.BAD_INPUT, "model_index")


def test_a_stage_runs_without_the_parts_it_does_not_need(run, latents, tiny_model, tmp_path):
    part = shutil.copytree(tiny_model, tmp_path / "part")
    shutil.rmtree(part / "text_encoder")
    shutil.rmtree(part / "transformer")
    assert run("decode", "latents.vgs", "--model", str(part), "-o", "x.mp4").code == 0
    refused(run("encode-text", "a", "--model", str(part), "-o", "y"), Exit.BAD_INPUT,
            "no component `text_encoder`")  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(run, latents):
    for words in (
        ["decode", "latents.vgs"],
        ["sample-keyframes", "text.vgs"],
        ["generate", "ball"],
    ):
        refused(run(*words, "--device", "cuda", "-o", "x.mp4"), Exit.USAGE, "CUDA")


def test_a_video_where_records_are_read(run, tmp_path):
    assert run("generate", "ball", "-o", "a.mp4").code == 0
    ran = run("decode", "a.mp4", "-o", "x.mp4")
    refused(ran, Exit.BAD_INPUT, "a.mp4: is a video", "vidgen encode-video a.mp4")


def test_an_option_is_called_by_its_first_name(run):
    refused(run("generate", "ball", "--num-inference-steps", "0"), Exit.USAGE, "--steps 0: must be")


# --- outputs --------------------------------------------------------------------------------------


def test_options_that_contradict_each_other(run, latents):
    refused(run("decode", "latents.vgs", "-o", "x.mp4", "--npz"), Exit.USAGE, "--npz")
    refused(run("decode", "latents.vgs", "-o", "x.mp4", "--format", "rgb"), Exit.USAGE, "--format")
    refused(run("generate", "a", "--seed", "0-3", "--num-samples", "2", "-o", "{id}.mp4"),
            Exit.USAGE, "--num-samples")  # fmt: skip


@pytest.mark.parametrize("command", ["decode", "encode-video"])
@pytest.mark.parametrize("option", ["--batch-size=2", "--compile", "--attention=math"])
def test_options_of_sampling_are_no_options_of_other_stages(run, command, option):
    name = option.partition("=")[0]
    refused(run(command, "x.vgs", option, "-o", "y"), Exit.USAGE, f"there is no option {name}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_kernel_that_is_not_for_this_device(run):
    refused(run("generate", "ball", "--attention", "cudnn", "-o", "x.mp4"), Exit.USAGE, "CUDA")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_graphs_where_there_are_none(run):
    refused(run("generate", "ball", "--cuda-graphs", "-o", "x.mp4"), Exit.USAGE, "--cuda-graphs")


def test_outputs_are_checked_before_the_work(run, latents, tmp_path, monkeypatch):
    import vidgen.systems.world as world

    monkeypatch.setattr(world, "load_autoencoder", lambda folder: pytest.fail("weights were read"))
    (tmp_path / "there.mp4").write_bytes(b"mine")
    refused(run("decode", "latents.vgs", "-o", "there.mp4"), Exit.USAGE, "-f overwrites")
    refused(run("decode", "latents.vgs", "-o", "no/x.mp4"), Exit.USAGE, "no folder")
    refused(run("decode", "latents.vgs", terminal=("stdout",)), Exit.USAGE, "terminal")
    refused(run("generate", "ball", "cube", "-o", "x.mp4"), Exit.USAGE, "2 videos", "x-{id}.mp4")
    (tmp_path / "cube.mp4").write_bytes(b"mine")
    words = ["generate", "ball", "cube", "-o", "{id}.mp4"]
    refused(run(*words), Exit.USAGE, "cube.mp4", "-f overwrites")
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"
    assert not (tmp_path / "ball.mp4").exists()


@contextmanager
def mounted(folder: Path, options: str):
    """A small tmpfs; skips where this is not allowed."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
                          capture_output=True)  # fmt: skip
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(run, latents, tmp_path):
    with mounted(tmp_path / "full", "size=8k"):
        (tmp_path / "full" / "ballast").write_bytes(b"x" * 8192)
        for target in ("full/x.vgs", "full/x.mp4"):
            ran = run("decode", "latents.vgs", "-o", target, "--keep")
            refused(ran, Exit.FAILED, "full")
            assert os.listdir(tmp_path / "full") == ["ballast"]


def test_a_read_only_folder(run, latents, tmp_path):
    with mounted(tmp_path / "locked", "size=64k"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "locked")], check=True)
        refused(run("decode", "latents.vgs", "-o", "locked/x.mp4"), Exit.USAGE, "locked")


# --- processes ------------------------------------------------------------------------------------


def environment(tiny_model: Path) -> dict[str, str]:
    return {**os.environ, "VIDGEN_MODEL": str(tiny_model), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_reader_that_goes_away(tiny_model, tmp_path):
    line = (
        f"{sys.executable} -m vidgen generate 'a red ball' --seed 0-5 | head -c 100 >/dev/null;"
        " echo ${PIPESTATUS[0]}"
    )
    ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment(tiny_model),
                         capture_output=True, text=True)  # fmt: skip
    assert ran.stdout.strip() == "141"
    assert "Traceback" not in ran.stderr and "Broken" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_signals_in_the_middle_of_the_work(tiny_model, tmp_path, number, code):
    """The first video is finished and stays; the second is under way and leaves nothing."""
    words = ["generate", "ball", "cube", "--batch-size", "1", "--steps", "1000", "-o", "{id}.mp4"]
    with subprocess.Popen(
        [*VIDGEN, *words, "--progress", "json"],
        cwd=tmp_path, env=environment(tiny_model), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        until = time.monotonic() + 120
        while not (tmp_path / "ball.mp4").exists() and time.monotonic() < until:
            process.stderr.readline()
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == code
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["ball.mp4"]


@pytest.mark.slow
def test_two_processes_that_write_the_same_file(tiny_model, tmp_path):
    """One wins; the other is told, or would have been refused from the start."""
    both = [
        subprocess.Popen([*VIDGEN, "generate", f"a {color} ball", "-o", "x.mp4"],
                         cwd=tmp_path, env=environment(tiny_model), stderr=subprocess.PIPE)
        for color in ("red", "blue")
    ]  # fmt: skip
    said = [p.communicate()[1].decode() for p in both]
    assert sorted(p.returncode for p in both) == [0, 2]
    assert "is there already" in said[0] + said[1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


def test_rewriting_a_stream_gives_the_same_bytes(run, latents, tmp_path):
    """Law L6, through another process's eyes."""
    with (tmp_path / "again.vgs").open("wb") as f:
        write_stream(read_stream(latents), f)
    assert (tmp_path / "again.vgs").read_bytes() == latents.read_bytes()
