"""A task that takes milliseconds: a residual MLP that learns a fixed random function."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from vidgen.train.recipe import section
from vidgen.train.task import Task, generator, share


@dataclass(frozen=True)
class TinyModel:
    width: int = 16
    depth: int = 2
    dropout: float = 0.0


@dataclass(frozen=True)
class TinyData:
    noise: float = 0.01
    nan_at: int = -1  # step whose data is NaN
    frozen_seed: int = 0


class Mlp(nn.Module):
    def __init__(self, config: TinyModel) -> None:
        super().__init__()
        self.patch_in = nn.Linear(4, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(config.width),
                nn.Linear(config.width, 2 * config.width),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(2 * config.width, config.width),
            )
            for _ in range(config.depth)
        )
        self.final = nn.Linear(config.width, 2)
        self.register_buffer("calls", torch.zeros(()))

    def predict(self, x: Tensor) -> Tensor:  # not `forward`: tasks call other methods too
        h = self.patch_in(x)
        for block in self.blocks:
            h = h + block(h)
        return self.final(h)


class TinyTask(Task):
    name = "tiny"

    def build(self) -> dict[str, nn.Module]:
        config = section(TinyModel, self.recipe.model, where="model")
        data = section(TinyData, self.recipe.data, where="data")
        net = Mlp(config)
        teacher = nn.Linear(4, 2).requires_grad_(False)
        with torch.no_grad():
            teacher.weight.copy_(torch.randn(2, 4, generator=generator(data.frozen_seed, "t")))
        return {"net": net, "teacher": teacher}

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        data = section(TinyData, self.recipe.data, where="data")
        rows = share(self.recipe.batch_size, rank, world)
        x = torch.randn(self.recipe.batch_size, 4, generator=generator(self.recipe.seed, "x", step))
        if step == data.nan_at:
            x[0] = float("nan")
        return {"x": x[rows.start : rows.stop]}

    def loss(self, modules, batch, generator):
        data = section(TinyData, self.recipe.data, where="data")
        x = batch["x"]
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        if modules["net"].training:
            modules["net"].calls += 1
        out = modules["net"].predict(x + data.noise * noise)
        loss = F.mse_loss(out.float(), torch.sin(modules["teacher"](x)).float())
        return loss, {"size": out.detach().abs().mean(), "draw": noise[0, 0]}

    def evaluate(self, modules, step):
        assert not torch.is_grad_enabled() and not modules["net"].training
        x = torch.randn(64, 4, generator=generator(0, "held out")).to(self.device)
        error = F.mse_loss(modules["net"].predict(x), torch.sin(modules["teacher"](x)))
        return {"loss": error.item()}

    def sample_sheet(self, modules, path: Path) -> None:
        Image.new("RGB", (8, 8), "white").save(path)

    def export(self, modules, folder: Path) -> None:
        save_file(modules["net"].state_dict(), folder / "model.safetensors")
        config = section(TinyModel, self.recipe.model, where="model")
        (folder / "config.json").write_text(json.dumps(asdict(config)))
