"""--offload and --weight-dtype of `vidgen sample` and `generate`: the same bytes wherever the
weights are, what is lost in fp8, and what can't be done refused with what could."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from released_folders import folders
from safetensors.torch import load_file, save_file
from torch import nn

from vidgen.errors import Exit, UsageError
from vidgen.io.stream import read_stream
from vidgen.nn.by_turn import ByTurn
from vidgen.nn.wan_dit import WanDiT
from vidgen.stages import fitting, memory, placing, sample_clips
from vidgen.stages.base import Compute
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems import released
from vidgen.systems.base import ModelFolder
from vidgen.systems.lora import Lora
from vidgen.systems.wan import load_config

KINDS = {"wan": "wan 2.2, two experts", "cogvideox": "cogvideox 5b, picture"}
SIZE = ("--steps", "2", "--num-frames", "9", "--size", "48x32")
LAYERS = {"wan": "blocks.1.attn2.to_out.0", "cogvideox": "transformer_blocks.1.ff.net.2"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """System → a folder of it, float32."""
    return folders(KINDS, tmp_path_factory)


@pytest.fixture(params=KINDS)
def model(request, models):
    return models[request.param]


@pytest.fixture
def wan(models):
    return models["wan"]


@pytest.fixture
def sample(vidgen, tmp_path):
    """A run of two steps with these options; the picture is for CogVideoX's."""

    def run(model, *words):
        given = ("--image", picture(tmp_path)) if "cogvideox" in model.name else ()
        fixed = ("--prompt", "a red ball", *SIZE, *given)
        return vidgen("sample", *fixed, "--model", str(model), *words)

    return run


def picture(folder):
    from PIL import Image

    Image.new("RGB", (48, 32), (200, 40, 90)).save(folder / "x.png")
    return str(folder / "x.png")


def lora(model, folder):
    """Of one layer, of rank two."""
    system = "cogvideox" if "cogvideox" in model.name else "wan"
    name, state = LAYERS[system], {}
    for path in (model / "transformer").glob("*.safetensors"):
        state |= load_file(path)
    high, wide = state[name + ".weight"].shape
    draw = torch.Generator().manual_seed(0)
    pair = {"lora_A": torch.randn(2, wide, generator=draw),
            "lora_B": torch.randn(high, 2, generator=draw)}  # fmt: skip
    save_file({f"transformer.{name}.{k}.weight": x for k, x in pair.items()}, folder / "l.st")
    return str(folder / "l.st")


# --- the same bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_weights_elsewhere_change_no_byte(sample, model, tmp_path, dtype):
    """As they are in the file and converted, with a LoRA, both branches, and two experts."""
    words = ("--dtype", dtype, "--lora", lora(model, tmp_path) + ":0.7", "--num-samples", "2",
             "--batch-size", "1")  # fmt: skip
    here = sample(model, *words)
    assert here.code == 0 and len(here.out) > 1000
    for offload in ("model", "layer"):
        elsewhere = sample(model, *words, "--offload", offload)
        assert elsewhere.code == 0, elsewhere.err
        assert elsewhere.out == here.out


def test_a_run_goes_on_with_its_weights_elsewhere(sample, wan):
    whole = sample(wan, "--solver", "unipc")
    keep = ("--solver", "unipc", "--checkpoint", "kept")
    stopped = sample(wan, *keep, "--stop-after", "1", "--offload", "layer")
    assert stopped.code == Exit.TRY_AGAIN
    done = sample(wan, *keep, "--offload", "model", "--resume", "yes")
    assert done.code == 0 and "goes on after step 1" in done.err
    assert done.out == whole.out
    assert sample(wan, *keep, "--stop-after", "1").code == Exit.TRY_AGAIN
    ran = sample(wan, *keep, "--resume", "yes", "--weight-dtype", "fp8")  # other samples
    assert ran.code == Exit.USAGE and "no checkpoint of these samples" in ran.err


@pytest.mark.filterwarnings("ignore")  # the compiler asks warnings of torch itself
def test_compiled_blocks_come_and_go(sample, wan, monkeypatch):
    """Compiled once for all blocks. The graph is traced, and run as it is: what a compiler makes of
    it rounds in its own way."""
    graphs, compile = [], nn.Module.compile

    def traced(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda self: compile(self, backend=traced))
    made = []
    for words in ((), ("--offload", "layer")):
        torch._dynamo.reset()
        made.append((sample(wan, "--compile", *words).out, len(graphs)))
    (here, count), (elsewhere, both) = made
    assert len(here) > 1000 and elsewhere == here and 0 < both - count <= count


def test_generate_reads_the_encoder_for_a_batch_at_a_time(vidgen, wan, monkeypatch):
    words = ("generate", "a ball", "a cube", "a cat", *SIZE, "--model", str(wan), "--no-cache",
             "--batch-size", "2", "-f", "-o", "x.vgs")  # fmt: skip
    assert vidgen(*words).code == 0
    frames, loads = Path("x.vgs").read_bytes(), []
    load = released.load_encoder

    def counted(*args, **kwargs):
        loads.append(args)
        return load(*args, **kwargs)

    monkeypatch.setattr("vidgen.systems.wan.load_encoder", counted)
    for offload in ("model", "layer"):
        loads.clear()
        assert vidgen(*words, "--offload", offload).code == 0
        assert Path("x.vgs").read_bytes() == frames and len(loads) == 2


# --- where they are -------------------------------------------------------------------------------


SMALL = Choices(num_frames=9, size=(48, 32))


def placed(model, choices=SMALL, **how):
    folder, compute = ModelFolder(model), Compute("cpu", "bf16", **how)
    run = sample_clips.run_of(folder, choices)
    return run, placing.networks(folder, run, choices, compute)


def called(run, network):
    """One call of it."""
    c = network.config.in_channels
    z = torch.zeros(1, c, *run.shape[1:])
    with torch.no_grad():
        network(z, torch.tensor([900.0]), text=torch.zeros(1, run.text_tokens, run.text_dim))


def in_bf16(network):
    """Whether its weights are here: in files they are float32."""
    return network.patch_in.weight.dtype == torch.bfloat16


def test_one_expert_at_a_time(wan):
    run, networks = placed(wan, offload="model")
    high, low = networks.here()
    assert not in_bf16(high) and not in_bf16(low)
    for one, other in ((high, low), (low, high)):
        called(run, one)
        assert in_bf16(one) and not in_bf16(other)
    networks.rest()
    assert not in_bf16(high) and not in_bf16(low)


def test_blocks_are_away_between_calls(wan, tmp_path):
    network_lora = Lora(lora(wan, tmp_path))
    run, networks = placed(wan, replace(SMALL, loras=(network_lora,)), offload="layer")
    high, _ = networks.here()
    called(run, high)
    assert isinstance(high.blocks, ByTurn) and in_bf16(high)
    assert high._modules["blocks"]._modules["1"].mlp[0].weight.dtype == torch.float32


def test_fp8_is_of_block_matrices_only(model):
    """Each is the weight as it was to its 16 levels an octave; what else there is stays as it was,
    float32 where it is that."""
    given = Choices(image="x.png") if "cogvideox" in model.name else Choices()
    run, networks = placed(model, given, weight_dtype="fp8")
    network = networks.here()[0]
    plain = run.load("transformer", torch.bfloat16)
    kept, lost = 0, []
    for name, x in plain.named_parameters():
        if not name.startswith("blocks."):
            assert x.equal(network.get_parameter(name))
    for i, block in enumerate(network.blocks):
        for name, x in block.named_parameters():
            wanted = plain.get_parameter(f"blocks.{i}.{name}")
            assert x.dtype == wanted.dtype
            if x.ndim == 2 and "adaln" not in name:
                lost.append(float((x.float() - wanted.float()).norm() / wanted.float().norm()))
                kept += 1
            else:
                assert x.equal(wanted)
    assert kept == len(network.blocks) * (10 if "wan" in model.name else 6)
    assert min(lost) > 0.02 and max(lost) < 0.035  # of normal numbers 0.0265


def test_fp8_is_said_and_how_much_it_changes(sample, model):
    """Measured: latents after two steps differ from those of bf16 by 1.0 % (Wan) and 2.2 %."""
    plain = sample(model, "--dtype", "bf16", "-o", "plain.vgs")
    ran = sample(model, "--dtype", "bf16", "--weight-dtype", "fp8", "-o", "fp8.vgs")
    assert plain.code == ran.code == 0 and "approximation" not in plain.err
    assert "warning: an approximation, as --weight-dtype fp8 says" in ran.err
    a, b = (next(read_stream(name)) for name in ("plain.vgs", "fp8.vgs"))
    entry = json.loads(json.dumps(b.log))[-1]
    assert entry["approximations"] == [
        "matrices of blocks are kept as fp8 (e4m3), scaled by output channel"
    ]
    x, y = a.torch("latents"), b.torch("latents")
    assert 1e-4 < float((y - x).norm() / x.norm()) < 0.05
    again = sample(model, "--dtype", "bf16", "--weight-dtype", "fp8", "--offload", "model",
                   "-o", "again.vgs")  # fmt: skip
    assert again.code == 0 and Path("again.vgs").read_bytes() == Path("fp8.vgs").read_bytes()


# --- what can't be done ---------------------------------------------------------------------------


def test_what_is_refused(vidgen, sample, wan, tiny_model, monkeypatch):
    ran = sample(wan, "--offload", "layer", "--weight-dtype", "fp8")
    assert ran.code == Exit.USAGE and "nothing to save beside --offload layer" in ran.err
    words = ("sample", "--prompt", "a can", "--model", str(tiny_model))
    for option in (("--offload", "layer"), ("--weight-dtype", "fp8")):
        ran = vidgen(*words, *option)
        assert ran.code == Exit.USAGE and f"{option[0]} has no effect here" in ran.err
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UsageError, match="not for mps"):
        Compute("mps", offload="model").check()


def test_what_weights_take(wan):
    """Of two networks of ten blocks: all, one of the two, or of both two blocks and the rest."""
    folder, compute = ModelFolder(wan), Compute("cpu", "bf16")
    config = replace(load_config(folder), depth=10)
    network = released.without_weights(partial(WanDiT, config))
    found = dict.fromkeys(network.state_dict(), SimpleNamespace(torch_dtype=torch.float32))
    run = sample_clips.run_of(folder, Choices(num_frames=9, size=(48, 32)))
    run = replace(run, build=lambda component: network, windows=lambda *_: found)
    sizes = {True: 0, False: 0}  # blocks, and what isn't: that is float32 is computed with as it is
    for name, x in network.named_parameters():
        if run.dtype_of(name, torch.bfloat16) == torch.bfloat16:
            sizes[name.startswith("blocks.")] += 2 * x.numel()
    blocks, rest = sizes[True], sizes[False]
    for offload, wanted in (
        ("none", 2 * (rest + blocks)),
        ("model", rest + blocks),
        ("layer", 2 * (rest + blocks // 5)),
    ):
        assert fitting.weight_bytes(run, replace(compute, offload=offload)) == wanted
    matrices = fitting.weight_bytes(run, replace(compute, weight_dtype="fp8"))
    assert 0.5 < (matrices - 2 * (rest + blocks // 5)) / (2 * blocks) < 0.55


def test_too_little_memory_is_told(sample, wan, monkeypatch):
    """Before anything is computed, for weights; in a step, for all that a step makes."""
    with monkeypatch.context() as patch:
        for module in (memory, fitting):
            patch.setattr(module, "free_bytes", lambda device: 1000)
        ran = sample(wan, "--dtype", "bf16")
    assert ran.code == Exit.OUT_OF_MEMORY and "the model takes about" in ran.err

    def full(*args):
        raise MemoryError

    monkeypatch.setattr(sample_clips, "free_bytes", lambda device: 0)
    monkeypatch.setattr(sample_clips.Noise, "initial", full)
    ran = sample(wan, "--batch-size", "1")
    assert ran.code == Exit.OUT_OF_MEMORY and "a smaller --size" in ran.err
    assert "a sample of 9 frames of 48x32 and the model don't fit" in ran.err


@pytest.mark.parametrize(
    ("free", "batch_size", "advice"),
    [
        (350, 4, "--batch-size 1"),
        (250, 4, "--batch-size 1 --offload model"),
        (250, 1, "--offload model"),
        (150, 1, "--offload layer"),
        (50, 1, "a smaller --size, or fewer --num-frames"),
    ],
)
def test_what_costs_least_is_named(wan, monkeypatch, free, batch_size, advice):
    """Of networks that take so many GiB, beside which what they make is nothing."""
    gib = {"none": 300, "model": 200, "layer": 100}
    monkeypatch.setattr(fitting, "weight_bytes", lambda run, compute: gib[compute.offload] << 30)
    run = sample_clips.run_of(ModelFolder(wan), Choices(num_frames=9, size=(48, 32)))
    compute = Compute("cpu", "bf16", batch_size=batch_size)
    assert fitting.fitting(run, compute, batch_size, free << 30) == advice


def test_graphs_are_for_networks_of_ours(sample, wan):
    ran = sample(wan, "--cuda-graphs")
    assert ran.code == Exit.USAGE and "--cuda-graphs has no effect here" in ran.err
