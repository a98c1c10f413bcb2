"""Wan and CogVideoX through the commands: a pipe is `generate`, each stage needs its own component
alone, and what can't be done is told before anything is computed."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from released_folders import folders
from safetensors.torch import save_file

from vidgen.errors import Exit
from vidgen.io.stream import read_stream
from vidgen.nn.pixels import from_uint8
from vidgen.systems import cogvideox, released, wan
from vidgen.systems.base import ModelFolder

PROMPT = "a red ball bounces on the grass"
SHORT = ("--steps", "2", "--seed", "3", "--num-frames", "5", "--size", "32x32")
KINDS = {"wan": "wan 2.2, two experts", "cogvideox": "cogvideox 2b"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """System → a folder of it, to be read only."""
    return folders(KINDS, tmp_path_factory)


@pytest.fixture(params=KINDS)
def model(request, written, tmp_path):
    """A copy of a folder."""
    return Path(shutil.copytree(written[request.param], tmp_path / "model"))


@pytest.fixture
def wan_model(written, tmp_path):
    return Path(shutil.copytree(written["wan"], tmp_path / "model"))


@pytest.fixture
def unread(monkeypatch):
    """Fails the test when weights are read."""

    def fail(*args, **kwargs):
        pytest.fail("weights were read")

    for system in (wan, cogvideox):
        for name in ("load_transformer", "load_autoencoder", "load_encoder"):
            monkeypatch.setattr(system, name, fail)


def short(model):
    """Options of a clip as small as the system makes."""
    return (*SHORT[:4], "--num-frames", "9", *SHORT[6:]) if is_cogvideox(model) else SHORT


def is_cogvideox(model):
    return "CogVideoX" in (model / "model_index.json").read_text()


def edit(model, file, **changes):
    path = model / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- what works -----------------------------------------------------------------------------------


def test_a_pipe_of_the_three_is_generate(vidgen, model):
    words = ("--model", str(model))
    text = vidgen("encode-text", PROMPT, "--negative", "cat", *words).out
    latents = vidgen("sample", *short(model), *words, stdin=text).out
    piped = vidgen("decode", *words, stdin=latents)
    assert piped.code == 0 and "warning" not in piped.err
    made = vidgen("generate", PROMPT, "--negative", "cat", *short(model), *words, "-o", "x.vgs")
    assert made.code == 0 and "warning" not in made.err
    assert Path("x.vgs").read_bytes() == piped.out
    frames = next(read_stream("x.vgs"))
    count = 9 if is_cogvideox(model) else 5
    assert frames["frames"].shape == (count, 32, 32, 3)
    assert frames.torch("times").tolist() == [i / frames.attrs["fps"] for i in range(count)]
    one = vidgen("sample", "--prompt", PROMPT, "--negative", "cat", *short(model), *words).out
    assert one == latents


def read(data):
    """The record of a stream, in a file of its own: tensors are windows into it."""
    path = Path(f"stream-{hashlib.sha256(data).hexdigest()}.vgs")
    path.write_bytes(data)
    return next(read_stream(path))


def test_each_stage_needs_its_own_component_alone(vidgen, model, tmp_path):
    """And what can't be checked without the others is said."""

    def only(*names):
        """A model of these components."""
        folder = Path(shutil.copytree(model, tmp_path / "-".join(names)))
        for path in folder.iterdir():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path)
        return str(folder)

    words, size = ("--model", str(model)), short(model)
    text = vidgen("encode-text", PROMPT, *words).out
    latents = vidgen("sample", *size, *words, stdin=text).out
    frames = vidgen("decode", *words, stdin=latents).out

    reader = only("text_encoder", "tokenizer")
    assert vidgen("encode-text", PROMPT, "--no-cache", "--model", reader).out == text
    refused = vidgen("sample", *size, "--model", reader, stdin=text)
    assert refused.code == Exit.BAD_INPUT and "no component `transformer`" in refused.err

    networks = only("transformer", "transformer_2", "scheduler", "vae")
    Path(networks, "vae", "diffusion_pytorch_model.safetensors").unlink()
    alone = vidgen("sample", *size, "--model", networks, stdin=text)
    assert alone.code == 0, alone.err
    assert "has no autoencoder" in alone.err and "has no text encoder" in alone.err
    assert read(alone.out)["latents"].torch().equal(read(latents)["latents"].torch())
    refused = vidgen("decode", "--model", networks, stdin=latents)
    assert refused.code == Exit.BAD_INPUT and "no *.safetensors" in refused.err

    refused = vidgen("generate", PROMPT, "--model", networks, "-o", "x.mp4")
    assert refused.code == Exit.BAD_INPUT and "no component `text_encoder`" in refused.err
    assert "warning" not in refused.err

    decoder = only("vae")
    assert vidgen("decode", "--model", decoder, stdin=latents).out == frames
    unnamed = vidgen("decode", "--model", decoder, stdin=alone.out)
    assert unnamed.code == 0 and "sampled without an autoencoder" in unnamed.err
    assert read(unnamed.out)["frames"].torch().equal(read(frames)["frames"].torch())


def test_a_video_becomes_latents_and_frames_again(vidgen, model, tmp_path):
    words = ("--model", str(model))
    assert (
        vidgen("world", "--seed", "5", "--size", "34x32", "--frames", "9", "-o", "x.mp4").code == 0
    )
    latents = vidgen("encode-video", "x.mp4", *words)
    assert latents.code == 0, latents.err
    record = read(latents.out)
    assert record["latents"].shape == (4, 3, 4, 5)
    system = cogvideox if is_cogvideox(model) else wan
    vae = system.load_autoencoder(ModelFolder.find(str(model)))
    frames = read(vidgen("convert", "x.mp4").out).torch("frames")
    x = torch.nn.functional.pad(
        from_uint8(frames).permute(3, 0, 1, 2), (0, 6, 0, 0), mode="replicate"
    )
    with torch.no_grad():
        wanted = vae.encode(x[None])[0]
    assert float((record.torch("latents") - wanted).norm() / wanted.norm()) < 1e-5
    back = read(vidgen("decode", *words, stdin=latents.out).out)
    assert back["frames"].shape == (9, 32, 34, 3)
    assert "FLOPs" in vidgen("encode-video", "x.mp4", *words, "--dry-run").text
    short = vidgen("encode-video", "x.mp4", "--frames", "7", *words)
    assert short.code == Exit.BAD_INPUT and "7 frames" in short.err


def test_seeds_are_those_of_any_batch(vidgen, wan_model):
    words = (*SHORT[:2], *SHORT[4:], "--model", str(wan_model))
    text = vidgen("encode-text", PROMPT, "--model", str(wan_model)).out
    many = vidgen("sample", "--seed", "0-2", *words, "-o", "many.vgs", stdin=text)
    assert many.code == 0
    one = read(vidgen("sample", "--seed", "1", *words, stdin=text).out)
    second = list(read_stream("many.vgs"))[1]
    assert second.attrs["seed"] == 1 and second.id.endswith("-s1")
    found, wanted = second.torch("latents"), one.torch("latents")
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_the_log_names_models_and_sampler(vidgen, wan_model):
    words = ("--solver", "euler", "--shift", "5", "--model", str(wan_model))
    assert vidgen("generate", PROMPT, *SHORT, *words, "-o", "x.mp4").code == 0
    entries = json.loads(vidgen("log", "x.mp4", "--json").text)
    shown = json.dumps(entries)
    for word in ('"wan/transformer"', '"wan/transformer_2"', '"wan/vae"', '"wan/text_encoder"',
                 '"solver": "euler"', '"shift": 5.0', '"steps": 2', '"seed": 3'):  # fmt: skip
        assert word in shown, word
    lines = vidgen("inspect", "x.mp4").text.splitlines()
    encoded, sampled, decoded = lines[lines.index("  made by: encode-text → sample → decode") + 1 :]
    hashes = [entries["records"][0]["log"][i]["model"]["sha256"][:12] for i in range(3)]
    assert encoded == f"    encode-text: wan/text_encoder@{hashes[0]}"
    assert sampled.startswith(f"    sample: wan/transformer@{hashes[1]}, wan/transformer_2@")
    assert "; seed 3; sampler guidance_scale " in sampled and "solver euler  steps 2" in sampled
    assert decoded == f"    decode: wan/vae@{hashes[2]}"


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m_sde"])
def test_other_solvers_come_out_finite(vidgen, model, solver):
    words = ("--solver", solver, "--model", str(model))
    made = vidgen("sample", "--prompt", PROMPT, *short(model), *words)
    assert made.code == 0, made.err
    assert read(made.out).torch("latents").abs().max() < 100


def test_more_than_the_encoder_reads_is_cut_and_said(vidgen, written):
    words = ("--model", str(written["cogvideox"]), "--no-cache")
    long = "a red ball bounces on the grass slowly a blue cat spins the cube"
    ran = vidgen("encode-text", long, *words)
    assert ran.code == 0
    assert "3 tokens longer than the 12" in ran.err and "from `spins the cube` on" in ran.err
    kept = vidgen("encode-text", long.removesuffix(" spins the cube"), *words)
    assert read(kept.out)["text.embeds"].torch().equal(read(ran.out)["text.embeds"].torch())


def test_a_prompt_of_wan_is_cleaned():
    cleaned = released.whitespace_cleaned
    assert cleaned("  a\tred &amp;amp; blue\n ball ") == "a red & blue ball"
    assert cleaned("\u201cＡ　ｂａｌｌ，\u201d it\u2019s ﬁne") == '"A ball," it\'s fine'
    assert cleaned("cafe\u0301") == "caf\u00e9"
    ftfy = pytest.importorskip("ftfy")
    for text in ("“Ａ　ｂａｌｌ，”", "it’s ﬁne", "色调艳丽，过曝", "ｶﾞ"):
        assert cleaned(text) == ftfy.fix_text(text)
    # All but what ftfy takes for text in windows-1252, or as UTF-8 that was read as that.
    guessed = {*range(0x80, 0xA0), 0xC2, 0xC3}
    for i in {*range(0x600), *range(0x2000, 0x2100), *range(0xFB00, 0x10000)} - guessed:
        text = f"a{chr(i)}b"
        assert cleaned(text) == " ".join(ftfy.fix_text(text).split()), hex(i)


# --- models ---------------------------------------------------------------------------------------


def test_models_tell_of_it(vidgen, model):
    shown = vidgen("models", "show", str(model), "--json")
    (told,) = json.loads(shown.text)["models"]
    assert told["system"] == ("cogvideox" if is_cogvideox(model) else "wan")
    assert set(told["serves"]) == {"encode-text", "encode-video", "sample", "decode"}
    assert told["latent_space"].startswith(told["system"] + "-vae@")
    own = told["sampler"]
    if is_cogvideox(model):
        assert (own["solver"], own["num_inference_steps"], own["guidance_scale"]) == ("ddim", 50, 6)
        assert told["geometry"] == {"num_frames": 9, "height": 32, "width": 48, "fps": 8.0}
    else:
        assert (own["solver"], own["shift"], own["guidance_scale"]) == ("unipc", 3.0, 5.0)
    verified = vidgen("models", "verify", str(model))
    assert verified.code == 0, verified.text
    assert verified.text.count("whole") >= 5


def test_a_model_that_is_not_whole(vidgen, wan_model):
    edit(wan_model, "transformer/config.json", ffn_dim=30)
    edit(wan_model, "text_encoder/config.json", d_ff=20)
    (wan_model / "scheduler" / "scheduler_config.json").unlink()
    ran = vidgen("models", "verify", str(wan_model))
    lines = {line.split()[1]: line for line in ran.text.splitlines()}
    assert ran.code == Exit.BAD_INPUT
    assert "not of the network's shape: `blocks.0.ffn" in lines["transformer"]
    assert "whole" in lines["transformer_2"] and "whole" in lines["vae"]
    assert "the network's is" in lines["text_encoder"]
    assert "missing from the model folder" in lines["scheduler"]


# --- what is refused ------------------------------------------------------------------------------


def test_a_folder_of_a_class_that_nobody_knows(vidgen, wan_model):
    edit(wan_model, "model_index.json", _class_name="LTXPipeline")
    ran = vidgen("generate", PROMPT, "--model", str(wan_model), "-o", "x.mp4")
    assert ran.code == Exit.BAD_INPUT
    assert "a pipeline of class LTXPipeline" in ran.err and "CogVideoXPipeline" in ran.err


@pytest.mark.parametrize("command", ["sample", "generate"])
@pytest.mark.parametrize(
    ("system", "wish", "said"),
    [
        ("wan", ("--num-frames", "80"), "--num-frames 77 or 81"),
        ("cogvideox", ("--num-frames", "48"), "--num-frames 41 or 49"),
        ("wan", ("--size", "830x480"), "--size 816x480 or 832x480"),
        ("cogvideox", ("--size", "720x488"), "--size 720x480 or 720x496"),
        ("cogvideox", ("--shift", "3"), "has no shift"),
        ("wan", ("--passes", "1"), "no component `interpolation`"),
    ],
)
def test_wishes_that_cant_be_fulfilled(vidgen, unread, written, command, system, wish, said):
    how = {"sample": ("--prompt", PROMPT), "generate": (PROMPT,)}[command]
    ran = vidgen(command, *how, *wish, "--model", str(written[system]), "-o", "x.vgs")
    assert ran.code in (Exit.USAGE, Exit.BAD_INPUT) and said in ran.err
    assert not Path("x.vgs").exists()


def test_pictures_of_models_that_have_no_use_for_them(vidgen, unread, written, tiny_model):
    for model in (written["cogvideox"], written["wan"], tiny_model):
        ran = vidgen("sample", "--prompt", PROMPT, "--image", "x.png", "--model", str(model))
        assert ran.code == Exit.USAGE and "makes clips of text alone" in ran.err


def test_models_of_one_size_have_no_other(vidgen, tiny_model):
    ran = vidgen("sample", "--prompt", PROMPT, "--size", "64x64", "--model", str(tiny_model))
    assert ran.code == Exit.USAGE and "makes 3 frames of 32x16, and no others" in ran.err


def test_keyframes_and_pictures_are_told_apart(vidgen, unread, wan_model):
    ran = vidgen("sample-keyframes", "--model", str(wan_model), stdin=b"")
    assert ran.code == Exit.USAGE and "vidgen sample --model" in ran.err
    edit(wan_model, "model_index.json", _class_name="WanImageToVideoPipeline")
    edit(wan_model, "transformer/config.json", in_channels=12)
    words = ("generate", PROMPT, *SHORT, "--model", str(wan_model), "-o", "x.mp4")
    ran = vidgen(*words)
    assert ran.code == Exit.USAGE and "an image-to-video model" in ran.err
    ran = vidgen(*words, "--image", "none.png")
    assert ran.code == Exit.BAD_INPUT and "none.png: no such file" in ran.err


def test_text_and_latents_of_others(vidgen, written, tiny_model):
    one, two = (("--model", str(folder)) for folder in written.values())
    text = vidgen("encode-text", PROMPT, *one).out
    ran = vidgen("sample", *SHORT[:4], *two, stdin=text)
    assert ran.code == Exit.BAD_INPUT and "text is encoded by `wan-text@" in ran.err
    latents = vidgen("sample", *SHORT, *one, stdin=text).out
    ran = vidgen("decode", *two, stdin=latents)
    assert ran.code == Exit.BAD_INPUT and "latents are in space `wan-vae@" in ran.err
    ran = vidgen("decode", "--model", str(tiny_model), stdin=latents)
    assert ran.code == Exit.BAD_INPUT and "another autoencoder made them" in ran.err


def test_shards(vidgen, wan_model):
    """One cut short, one missing, and a key that none of them has."""
    words = ("sample", "--prompt", PROMPT, *SHORT, "--model", str(wan_model))
    folder = wan_model / "transformer"
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[: len(whole) // 2])
    ran = vidgen(*words)
    assert ran.code == Exit.BAD_INPUT and shards[0].name in ran.err
    shards[0].unlink()
    ran = vidgen(*words)
    assert ran.code == Exit.BAD_INPUT
    assert f"shard {shards[0].name} is missing, one of {len(shards)}" in ran.err
    shards[0].write_bytes(whole)
    edit(wan_model, "transformer/config.json", num_layers=3)
    ran = vidgen(*words)
    assert ran.code == Exit.BAD_INPUT and "it lacks `blocks.2." in ran.err


def test_variants_beside_the_weights_are_left_alone(tmp_path):
    folder = tmp_path / "vae"
    folder.mkdir()
    weights = {"a": torch.zeros(1)}
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (folder / "config.json").write_text("{}")
    save_file(weights, folder / "model.fp16.safetensors")
    model = ModelFolder.find(str(tmp_path))
    assert [p.name for p in model.weight_files("vae")] == ["model.fp16.safetensors"]
    save_file(weights, folder / "model.safetensors")
    assert [p.name for p in model.weight_files("vae")] == ["model.safetensors"]
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    for name in ("model.safetensors.index.json", "model.safetensors.index.fp16.json"):
        (folder / name).write_text(json.dumps(index))
    for name in index["weight_map"].values():
        save_file(weights, folder / name)
    found = [p.name for p in model.weight_files("vae")]
    assert found == ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]


def test_a_plan_costs_no_sampling(vidgen, model):
    words = ("--model", str(model), "--dry-run")
    ran = vidgen("generate", PROMPT, *short(model), *words)
    assert ran.code == 0, ran.err
    for word in ("encode-text\n", "sample\n", "decode\n", "32x32", "FLOPs", "network calls each"):
        assert word in ran.text
    assert not list(Path().glob("*.mp4"))


def test_a_plan_counts_where_a_solver_looks_ahead(vidgen, model):
    """Two steps of Heun's, the last of them without a second look, are as three of Euler's."""
    words, costs = ("generate", PROMPT, *short(model), "--model", str(model), "-n"), []
    for solver, steps in (("heun", "2"), ("euler", "3")):
        ran = vidgen(*words, "--solver", solver, "--steps", steps)
        assert "6 network calls each" in ran.text, ran.err
        costs.append([line for line in ran.text.splitlines() if "FLOPs" in line])
    assert costs[0] == costs[1]
