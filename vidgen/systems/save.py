"""Writing model folders: one component, and the index that binds them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from vidgen.io import int8

CLASSES = {
    "interpolation": ["vidgen", "UNet"],
    "interpolation_masked": ["vidgen", "UNet"],
    "text_encoder": ["transformers", "BertModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["vidgen", "VideoDiT"],
    "upsampler": ["vidgen", "UNet"],
    "vae": ["vidgen", "VideoAutoencoder"],
    "video_decoder": ["vidgen", "MoVQDecoder"],
    "scheduler": ["vidgen", "Sampler"],
}

WEIGHTS = "diffusion_pytorch_model.safetensors"  # as diffusers calls them

# What a model may have beside its own, for the latents of its autoencoder. Any of them can go from
# one model into another that has the same `vae/`.
PARTS = ("interpolation", "interpolation_masked", "upsampler", "video_decoder")


def write_component(
    folder: Path,
    config: dict[str, Any],
    module: nn.Module,
    *,
    dtype: torch.dtype = torch.bfloat16,
    eight_bits: bool = False,
    filename: str = WEIGHTS,
) -> None:
    """`config.json` and the module's weights in `dtype`; its buffers keep theirs. With `eight_bits`
    matrices are stored as `vidgen.io.int8` has it, and are of that dtype when they are read."""
    parameters = {name for name, _ in module.named_parameters()}
    state = {
        name: (x.to(dtype) if name in parameters else x).detach().cpu().contiguous()
        for name, x in module.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    (folder / filename).write_bytes(save(int8.packed(state) if eight_bits else state))


def write_index(
    folder: Path,
    name: str,
    system: str,
    components: list[str],
    classes: Mapping[str, str] | None = None,
) -> None:
    """`model_index.json`, last of all: a folder without it is not a model yet. `classes`: of
    components that are another network than usual."""
    index: dict[str, Any] = {"_class_name": "VidgenModel", "name": name, "system": system}
    index |= {c: CLASSES[c] for c in components}
    index |= {c: ["vidgen", kind] for c, kind in (classes or {}).items()}
    write_json(folder / "model_index.json", index)


def copy_component(source: Path, target: Path) -> None:
    """The same bytes under another model: latent space and text encoder stay what they were."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
