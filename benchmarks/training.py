"""Training throughput of the shipped recipe, and the renderer that feeds it."""

from __future__ import annotations

import torch
from vidgen.world.render import render
from vidgen.world.scene import sample_scene

from benchmarks.common import Row, seconds
from vidgen.diffusion import losses
from vidgen.diffusion.prediction import PREDICTIONS
from vidgen.nn.dit import DiTConfig, VideoDiT


def rendering() -> list[Row]:
    """Clips a second: five keyframes of 40 × 64."""
    scenes = [sample_scene(seed) for seed in range(64)]
    times = [0.0, 0.5, 1.0, 1.5, 2.0]
    taken = seconds(lambda: render(scenes, times=times, height=40, width=64), repeat=3)
    return [Row("world: 5 frames of 40 x 64", f"{64 / taken:.0f} clips/s", "", None)]


def training() -> list[Row]:
    """Clips a second through forward and backward of the keyframe model, batch 64."""
    rows = []
    x0, eps = torch.randn(2, 64, 8, 5, 5, 8)
    cond = {"text": torch.randn(64, 20, 128), "pooled": torch.randn(64, 128)}
    level = losses.logit_normal_flow(64, mean=0.4, std=1.0)
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        network = VideoDiT(DiTConfig())

        def step(network=network, dtype=dtype):
            def raw(z, t, cond):
                return network(z, t, **cond)

            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                flow = PREDICTIONS["flow"]()
                losses.training_loss(raw, flow, x0, cond, level, eps).mean().backward()

        taken = seconds(step, repeat=3)
        name = f"keyframe model, forward + backward, {str(dtype)[6:]}"
        rows.append(Row(name, f"{64 / taken:.0f} clips/s", "", None))
    return rows
