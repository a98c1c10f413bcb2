"""Clips a second: rendering, encoding, training and sampling, against what the machine's matrix
products allow. FLOPs are counted by torch, the machine's rate is measured in the same dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Row, seconds
from vidgen.diffusion import losses
from vidgen.diffusion.prediction import PREDICTIONS
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import Choices, sample_keyframes
from vidgen.systems import world
from vidgen.systems.base import ModelFolder
from vidgen.train.optim import Optimizer
from vidgen.train.recipe import Optim
from vidgen.world.render import render
from vidgen.world.scene import sample_scene

BATCH = 64
TIMES = (0.0, 0.5, 1.0, 1.5, 2.0)


def devices() -> Iterator[torch.device]:
    yield torch.device("cpu")
    if torch.cuda.is_available():
        yield torch.device("cuda")


def rendering() -> list[Row]:
    """Five keyframes of 40 × 64, basic and full world."""
    rows = []
    for device in devices():
        for level in ("basic", "full"):
            scenes = [sample_scene(seed, level=level) for seed in range(BATCH)]

            def run(scenes=scenes, device=device):
                render(scenes, times=TIMES, height=40, width=64, device=device).frames.cpu()

            rate = BATCH / seconds(run, repeat=3)
            rows.append(
                Row(f"{device}: render 5 x 40 x 64, {level}", f"{rate:.0f} clips/s", "", None)
            )
    return rows


def training() -> list[Row]:
    """Encoding, and a training step with its optimizer, in float32 and bfloat16."""
    return [
        row
        for device in devices()
        for dtype in (torch.float32, torch.bfloat16)
        for row in (_encoding(device, dtype), _step(device, dtype))
    ]


def sampling() -> list[Row]:
    """Keyframes of the shipped model as it samples by default: 16 prompts in one batch, and one
    alone, with guidance and without, which is what a model distilled from guidance would take."""
    folder = ModelFolder.find()
    texts = list(encode_text([Prompt("a red ball bounces", id=f"p{i}") for i in range(16)], folder))
    name = f"sample keyframes, {folder.sampler.solver}, {folder.sampler.num_inference_steps} steps"
    rows = []
    for device in devices():
        compute = Compute(str(device), batch_size=16)

        def run(count=1, compute=compute, **choices):
            list(sample_keyframes(iter(texts[:count]), folder, Choices(**choices), compute=compute))

        rate = 16 / seconds(lambda run=run: run(16), repeat=3)
        guided = seconds(run, repeat=5)
        plain = seconds(lambda run=run: run(guidance_scale=1.0), repeat=5)
        rows += [
            Row(f"{device}: {name}, 16 at once", f"{rate:.1f} clips/s", "", None),
            Row(
                f"{device}: {name}, one, with weights read; guidance off",
                f"{guided:.2f} s", f"{plain:.2f} s", guided / plain,
            ),
        ]  # fmt: skip
    return rows


def _encoding(device: torch.device, dtype: torch.dtype) -> Row:
    vae = world.load_autoencoder(ModelFolder.find()).float().to(device)
    frames = torch.rand(16, 3, 5, 40, 64, device=device) * 2 - 1

    @torch.no_grad()
    def run() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            vae.encode(frames)

    return _against_roofline("encode 5 x 40 x 64", run, 16, device, dtype)


def _step(device: torch.device, dtype: torch.dtype) -> Row:
    torch.manual_seed(0)
    network = VideoDiT(DiTConfig()).to(device)
    optimizer = Optimizer({"transformer": network}, Optim())
    x0, eps = torch.randn(2, BATCH, 8, 5, 5, 8, device=device)
    cond = {
        "text": torch.randn(BATCH, 20, 128, device=device),
        "pooled": torch.randn(BATCH, 128, device=device),
    }
    level = losses.logit_normal_flow(BATCH, mean=0.4, std=1.0).on(x0)
    flow = PREDICTIONS["flow"]()

    def raw(z, t, cond):
        return network(z, t, **cond)

    def run() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            losses.training_loss(raw, flow, x0, cond, level, eps).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return _against_roofline("keyframe training step", run, BATCH, device, dtype)


def _against_roofline(
    what: str, run: Callable[[], None], clips: int, device: torch.device, dtype: torch.dtype
) -> Row:
    """Clips a second, and the share of the machine's matrix-product rate that this is."""

    def done() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counted:
        run()
    taken = seconds(done, repeat=3)
    achieved, most = counted.get_total_flops() / taken, matmul_rate(device, dtype)
    return Row(
        f"{device}: {what}, {str(dtype)[6:]}",
        f"{clips / taken:.0f} clips/s",
        f"{most / 1e9:.0f} GFLOP/s",
        achieved / most,
        f"{achieved / 1e9:.0f} GFLOP/s achieved, of square matrix products' rate",
    )


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of square matrices, large enough to be bound by arithmetic."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, n, n, device=device).to(dtype)

    def run() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 / seconds(run, repeat=5)
