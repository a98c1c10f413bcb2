"""What `vidgen extend` would do, before it does it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from vidgen.io.record import Record
from vidgen.stages.base import Compute
from vidgen.stages.costs import calls, costs, count_of, flops_of, number, on_meta, table
from vidgen.stages.extend_choices import Choices, plan_of
from vidgen.stages.plan import told_of_text, widest
from vidgen.stages.text_network import system_of
from vidgen.systems import load
from vidgen.systems.base import ModelFolder

BACKWARD = 3  # a call and its gradient, in calls


def extending(
    folder: ModelFolder, compute: Compute, records: Iterable[Record], choices: Choices
) -> str:
    """Of extend, for these latents records."""
    choices.check_for(folder)
    plans = [plan_of(record, folder, choices) for record in records]
    system, sampler = system_of(folder), folder.sampler
    network = on_meta(lambda: system.load_transformer(folder))
    shape = system.sample_shape(folder, network.config)
    c, size, h, w = shape
    counts = [sum(len(some) for _, some, _ in plan.passes(size, choices.overlap)) for plan in plans]
    scale = sampler.guidance_scale if choices.guidance_scale is None else choices.guidance_scale
    steps = choices.num_inference_steps or sampler.num_inference_steps
    branches = 1 if scale == 1 else 2
    each = calls(sampler, load.levels_of(sampler, steps), scale)
    cond = told_of_text(
        network.config.text_dim, size, folder.config("transformer").get("pooled_dim", 0)
    )
    z, one = torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta")
    flops = BACKWARD * each * sum(counts) * flops_of(system.called(network), z, one, cond)
    # The backward pass needs what every block had, not only the widest.
    together = min(compute.batch_size, max(len(plans), 1)) * branches * len(network.blocks)
    live = together * widest(network.config, size * h * w) * compute.torch_dtype().itemsize
    made = sorted({f"[{c}, {plan.num_frames}, {h}, {w}] float32" for plan in plans})
    return table(
        "extend",
        {
            "model": f"{folder.name} ({count_of(network)} parameters)",
            "records": str(len(plans)),
            "latents": ", ".join(made),
            "windows": f"{sum(counts)} of {size} frames",
            "sampler": f"{sampler.solver}, {steps} steps, guidance {scale:g}: {each} network calls"
            " and their gradients a window",
            **costs(network, flops, live, compute, number(len(plans))),
        },
    )
