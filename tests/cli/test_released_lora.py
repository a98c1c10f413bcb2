"""LoRA through `vidgen sample`: as if the weights of the folder were others, whoever named its
layers; refused where it fits no layer; and named in the log."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from released_folders import folders
from safetensors.torch import load_file, save_file

from vidgen.errors import Exit
from vidgen.io.stream import read_stream

SIZE = {"wan": ("--num-frames", "5", "--size", "32x32"),
        "cogvideox": ("--num-frames", "9", "--size", "32x32")}  # fmt: skip
KINDS = {"wan": "wan 2.1", "cogvideox": "cogvideox 2b"}
ALPHA, RANK = 4.0, 2
# Layers in released folders, and as the authors name them.
WAN = {"blocks.0.attn1.to_q": "blocks.0.self_attn.q", "blocks.1.attn2.to_out.0":
       "blocks.1.cross_attn.o", "blocks.1.ffn.net.0.proj": "blocks.1.ffn.0",
       "condition_embedder.time_proj": "time_projection.1"}  # fmt: skip
COGVIDEOX = ("transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.2")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return folders(KINDS, tmp_path_factory)


def weights_of(model):
    state = {}
    for path in (model / "transformer").glob("*.safetensors"):
        state |= load_file(path)
    return state


def matrices(model, layers, seed=0):
    """Layer → A and B of rank two, of the layer's sizes."""
    state, draw = weights_of(model), torch.Generator().manual_seed(seed)
    sizes = {layer: state[layer + ".weight"].shape for layer in layers}
    return {
        layer: (
            0.3 * torch.randn(RANK, wide, generator=draw),
            0.3 * torch.randn(high, RANK, generator=draw),
        )
        for layer, (high, wide) in sizes.items()
    }


def changed(model, target, found, amount):
    """A copy of the folder with amount · B A added to its weights."""
    shutil.copytree(model, target)
    for path in (target / "transformer").glob("*.safetensors"):
        state = load_file(path)
        for layer, (down, up) in found.items():
            if layer + ".weight" in state:
                state[layer + ".weight"] += amount * up @ down
        save_file(state, path, metadata={"format": "pt"})
    return target


def save_lora(path, found, *, prefix, names=str, ends=("lora_A", "lora_B"), alpha=None):
    state = {}
    for layer, pair in found.items():
        for x, end in zip(pair, ends, strict=True):
            state[f"{prefix}{names(layer)}.{end}.weight"] = x.contiguous()
        if alpha is not None:
            state[f"{prefix}{names(layer)}.alpha"] = torch.tensor(alpha)
    save_file(state, path)
    return str(path)


@pytest.fixture
def sampled(vidgen):
    """The latents of a prompt; and what was said."""

    def sample(system, model, *loras):
        words = [x for lora in loras for x in ("--lora", lora)]
        words += ["--model", str(model), "-f", "-o", f"{len(loras)}-made.vgs"]
        ran = vidgen("sample", "--prompt", "a red ball", "--steps", "2", *SIZE[system], *words)
        if ran.code:
            return None, ran
        return next(read_stream(f"{len(loras)}-made.vgs")).torch("latents").clone(), ran

    return sample


def error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def kohya(layer):
    return layer.replace(".", "_")


@pytest.mark.parametrize(
    ("prefix", "names", "ends", "alpha"),
    [
        ("transformer.", str, ("lora_A", "lora_B"), None),
        ("", str, ("lora.down", "lora.up"), ALPHA),
        ("diffusion_model.", WAN.get, ("lora_A", "lora_B"), None),
        ("diffusion_model.", WAN.get, ("lora_down", "lora_up"), ALPHA),
        ("lora_unet_", lambda x: kohya(WAN[x]), ("lora_down", "lora_up"), ALPHA),
    ],
)
def test_a_lora_is_as_if_the_weights_were_others(
    sampled, models, tmp_path, prefix, names, ends, alpha
):
    """Whoever named the layers. Measured: equal to the bit, or 1e-7."""
    found = matrices(models["wan"], WAN)
    lora = save_lora(tmp_path / "x.safetensors", found, prefix=prefix, names=names, ends=ends,
                     alpha=alpha)  # fmt: skip
    amount = 0.5 * (1.0 if alpha is None else alpha / RANK)
    other = changed(models["wan"], tmp_path / "other", found, amount)
    wanted, _ = sampled("wan", other)
    plain, _ = sampled("wan", models["wan"])
    latents, ran = sampled("wan", models["wan"], f"{lora}:0.5")
    assert latents is not None, ran.err
    assert error(latents, wanted) < 1e-5 < 1e-2 < error(plain, wanted)


def test_several_and_their_log(sampled, models, tmp_path):
    layers = {layer: layer for layer in COGVIDEOX}
    first, second = (matrices(models["cogvideox"], layers, seed) for seed in (1, 2))
    one = save_lora(tmp_path / "one.safetensors", first, prefix="transformer.")
    two = save_lora(tmp_path / "two.safetensors", second, prefix="transformer.")
    other = changed(models["cogvideox"], tmp_path / "a", first, 0.7)
    other = changed(other, tmp_path / "b", second, -0.2)
    wanted, _ = sampled("cogvideox", other)
    latents, ran = sampled("cogvideox", models["cogvideox"], f"{one}:0.7", f"{two}:-0.2")
    assert latents is not None, ran.err
    assert error(latents, wanted) < 1e-5
    entry = json.loads(json.dumps(next(read_stream("2-made.vgs")).log))[-1]
    assert [(x["name"], x["weight"]) for x in entry["loras"]] == [("one", 0.7), ("two", -0.2)]
    assert all(len(x["sha256"]) == 64 for x in entry["loras"])
    assert entry["argv"][-4:] == ["--lora", "FILE:0.7", "--lora", "FILE:-0.2"]


def test_alpha_of_peft_and_whole_differences(sampled, models, tmp_path):
    layer = "blocks.0.attn1.to_q"
    found = matrices(models["wan"], [layer])
    (down, up), bias = found[layer], torch.ones(len(found[layer][1]))
    state = {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up,
             "diffusion_model.blocks.0.self_attn.q.diff_b": bias}  # fmt: skip
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": ALPHA})}
    save_file(state, tmp_path / "x.safetensors", metadata=metadata)
    other = changed(models["wan"], tmp_path / "other", found, ALPHA / RANK)
    for path in (other / "transformer").glob("*.safetensors"):
        weights = load_file(path)
        if f"{layer}.bias" in weights:
            weights[f"{layer}.bias"] += bias
            save_file(weights, path, metadata={"format": "pt"})
    wanted, _ = sampled("wan", other)
    latents, ran = sampled("wan", models["wan"], str(tmp_path / "x.safetensors"))
    assert latents is not None, ran.err
    assert error(latents, wanted) < 1e-5


def test_what_is_refused(vidgen, sampled, models, tiny_model, tmp_path):
    layer = "blocks.0.attn1.to_q"
    pair = {layer: (torch.zeros(RANK, 7), torch.zeros(24, RANK))}
    narrow = save_lora(tmp_path / "narrow.safetensors", pair, prefix="transformer.")
    _, ran = sampled("wan", models["wan"], narrow)
    assert ran.code == Exit.BAD_INPUT and "a LoRA of another network" in ran.err
    foreign = save_lora(tmp_path / "foreign.safetensors", pair, prefix="transformer.",
                        names=lambda x: "single_blocks.3.linear1")  # fmt: skip
    _, ran = sampled("wan", models["wan"], foreign)
    assert ran.code == Exit.BAD_INPUT and "`transformer.single_blocks.3.linear1" in ran.err
    _, ran = sampled("wan", models["wan"], "none.safetensors:0.5")
    assert ran.code == Exit.USAGE and "no such file" in ran.err
    _, ran = sampled("wan", models["wan"], f"transformer_2={foreign}")
    assert ran.code == Exit.USAGE and "has no network `transformer_2`" in ran.err
    ran = vidgen("sample", "--prompt", "a can", "--lora", foreign, "--model", str(tiny_model))
    assert ran.code == Exit.USAGE and "only into released models" in ran.err
    assert not Path("1-made.vgs").exists()
