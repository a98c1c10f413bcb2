"""Networks that make a clip's features, by name, and all that decides their numbers.

world           of the procedural world; shipped
i3d:google      FVD as first published
i3d:stylegan-v  as StyleGAN-V and most papers since
i3d:tats, i3d:videogpt, i3d:cd-fvd-128, i3d:cd-fvd-256
clip            mean over frames of CLIP's embeddings
c3d             logits of UCF-101's classes, for the Inception score
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vidgen.errors import InputError, UsageError
from vidgen.io.weights import sha256
from vidgen.metrics import preprocess
from vidgen.metrics.state_file import read_state
from vidgen.nn.i3d import CLASSES, I3D, MIN_FRAMES, Pools
from vidgen.nn.i3d_keys import Layout, to_native


class Extractor(Protocol):
    """Clips, uint8 `b t h w 3` → features, float32 `b d`, on the CPU."""

    name: str
    sha256: str  # of the weights
    dim: int
    min_frames: int
    settings: dict[str, Any]  # all that decides the features

    def __call__(self, clips: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class I3DProtocol:
    """What a family of papers feeds I3D, and which file its network comes in."""

    prepare: Callable[[Tensor], Tensor]
    said: str  # of `prepare`, for reports
    file: str  # its usual name
    layouts: tuple[Layout, ...]  # of that file, and of what is made from it
    epsilon: float  # of that port's norms
    pools: Pools = "tensorflow"


HUB = "i3d_torchscript.pt"  # weights of TensorFlow Hub's module
TATS = "i3d_pretrained_400.pt"
FILE_SIZE = "about 50 MB"

_CD_FVD = "shorter side to {0}, bilinear, antialiased; center {0} × {0}; truncated to 8 bits; "
_STRAIGHT = "224 × 224 straight, bilinear, half-pixel centers, no antialias; 2x/255 − 1"
PROTOCOLS = {
    "google": I3DProtocol(
        preprocess.google,
        "224 × 224 straight, TF1 bilinear without half-pixel centers; 2x/255 − 1",
        HUB, ("hassony2", "tensorflow"), 1e-3,
    ),
    "stylegan-v": I3DProtocol(
        preprocess.stylegan_v, "center square; " + _STRAIGHT, HUB, ("hassony2",), 1e-3, "hassony2",
    ),
    "tats": I3DProtocol(preprocess.tats, _STRAIGHT, TATS, ("piergiaj",), 1e-5),
    "videogpt": I3DProtocol(
        preprocess.videogpt,
        "shorter side to 224, longer rounded up, bilinear, half-pixel centers, no antialias; "
        "center 224 × 224; (x/255 − 0.5)·2",
        TATS, ("piergiaj",), 1e-5,
    ),
    **{
        f"cd-fvd-{n}": I3DProtocol(
            partial(preprocess.cd_fvd, resolution=n), _CD_FVD.format(n) + _STRAIGHT,
            TATS, ("piergiaj",), 1e-5,
        )
        for n in (128, 256)
    },
}  # fmt: skip
NAMES = ("world", *(f"i3d:{name}" for name in PROTOCOLS), "clip", "c3d")


class I3DExtractor:
    """I3D's 400 logits, the mean over time; what FVD calls features."""

    dim = CLASSES
    min_frames = MIN_FRAMES

    def __init__(self, name: str, weights: Path, device: torch.device) -> None:
        protocol = PROTOCOLS[name.removeprefix("i3d:")]
        layout, state = _i3d_state(weights, name, protocol)
        self.name, self.sha256, self.prepare = name, sha256(weights), protocol.prepare
        self.net = I3D(epsilon=protocol.epsilon, pools=protocol.pools)
        self.net.load_state_dict(state)
        self.net.eval().requires_grad_(False).to(device)
        self.device = device
        self.settings: dict[str, Any] = {
            "extractor": name,
            "layer": "logits before softmax, mean over time",
            "weights_sha256": self.sha256,
            "weights_layout": layout,
            "batch_norm_epsilon": protocol.epsilon,
            "pool_alignment": protocol.pools,
            "preprocessing": protocol.said,
        }

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        check_frames(clips, self)
        return self.net(self.prepare(clips.to(self.device))).float().cpu()


def _i3d_state(path: Path, name: str, protocol: I3DProtocol) -> tuple[Layout, dict[str, Tensor]]:
    try:
        layout, state = to_native(read_state(path))
    except ValueError as error:
        raise InputError(f"{path}: not the weights of I3D", why=str(error)) from None
    if layout in protocol.layouts:
        return layout, state
    others = [n for n, p in PROTOCOLS.items() if layout in p.layouts]
    raise InputError(
        f"{path}: weights named as {layout} has them; {name} takes {' or '.join(protocol.layouts)}",
        why="the two files differ in weights and in the epsilon of their norms",
        next=f"i3d:{others[0]}, or give {protocol.file}",
    )


def check_frames(clips: Tensor, extractor: Extractor) -> None:
    """InputError for clips that are too short for a network."""
    if clips.shape[1] < extractor.min_frames:
        raise InputError(
            f"clips of {clips.shape[1]} frames; {extractor.name} needs {extractor.min_frames}"
        )


def make(name: str, *, weights: Path | None, device: torch.device) -> Extractor:
    """The extractor of a name. UsageError for another name, and for weights that it needs and
    that are not given, or the other way around."""
    if name not in NAMES:
        raise UsageError(f"no extractor {name!r}", next=f"one of {', '.join(NAMES)}")
    if name == "world":
        if weights is not None:
            raise UsageError("--weights: the extractor `world` brings its own")
        from vidgen.metrics import world_features

        return world_features.load(device)
    if weights is None:
        raise UsageError(f"{name} needs weights, which vidgen does not ship", **_needed(name))
    if name == "clip":
        from vidgen.metrics.clip import ClipExtractor

        return ClipExtractor(weights, device)
    if name == "c3d":
        from vidgen.metrics.c3d import C3DExtractor

        return C3DExtractor(weights, device)
    return I3DExtractor(name, weights, device)


def _needed(name: str) -> dict[str, str]:
    if name == "clip":
        return {
            "why": "usually openai/clip-vit-base-patch32, about 600 MB: a folder of config.json, "
            "model.safetensors, preprocessor_config.json and a tokenizer's files",
            "next": "--weights FOLDER",
        }
    if name == "c3d":
        return {
            "why": "usually c3d_ucf101.pt or conv3d_deepnetA_ucf.npz, about 310 MB: C3D tuned on "
            "UCF-101, not that of Sports-1M",
            "next": "--weights FILE",
        }
    protocol = PROTOCOLS[name.removeprefix("i3d:")]
    return {
        "why": f"usually {protocol.file}, {FILE_SIZE}, or its tensors as safetensors",
        "next": "--weights FILE",
    }
