"""CLIP, from a folder that transformers reads: embeddings of frames and of texts, of length 1.

Radford et al. 2021 (arXiv 2103.00020). Frames are prepared as the folder's own
preprocessor_config.json says, by Pillow, as published scores were; resizing tensors instead
changes a score's third decimal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.errors import InputError, VidgenError
from vidgen.io.weights import combined_sha256, weight_map

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil, CLIPTokenizer

BATCH = 64  # frames at a time
SINGLE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
PROCESSOR = "preprocessor_config.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either
PREPARED = """do_resize size resample do_center_crop crop_size do_rescale rescale_factor
    do_normalize image_mean image_std""".split()  # what of the processor's settings decides pixels

DECIDING = ("hidden_act", "layer_norm_eps", "num_attention_heads")  # numbers, and in no weight


class Clip:
    """Both towers, or that of images alone."""

    def __init__(
        self,
        net: Any,  # a CLIPModel, or the tower of images
        processor: CLIPImageProcessorPil,
        tokenizer: CLIPTokenizer | None,
        sha256: str,
    ) -> None:
        self.net, self.processor, self.tokenizer, self.sha256 = net, processor, tokenizer, sha256
        self.projected = hasattr(net, "visual_projection")
        config = net.config
        self.dim = int(config.projection_dim if self.projected else config.hidden_size)
        said = processor.to_dict()
        vision = getattr(config, "vision_config", config)
        self.settings: dict[str, Any] = {
            "network": type(net).__name__,
            "layer": "projected, of length 1" if self.projected else "pooled, of length 1",
            "weights_sha256": sha256,
            "config": {key: getattr(vision, key) for key in DECIDING},
            "preprocessing": {key: _plain(said[key]) for key in PREPARED if key in said},
        }

    @property
    def reads_text(self) -> bool:
        return self.tokenizer is not None

    @property
    def context(self) -> int:
        """Tokens that the text tower reads, the two around a text among them."""
        return int(self.net.config.text_config.max_position_embeddings)

    @torch.no_grad()
    def frames(self, frames: Tensor) -> Tensor:
        """uint8 `b h w 3` → float32 `b d`, on the CPU."""
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"{frames.dtype} {list(frames.shape)}, not uint8 [b, h, w, 3]")
        return torch.cat([self._embed_frames(some) for some in frames.split(BATCH)])

    def _embed_frames(self, frames: Tensor) -> Tensor:
        pixels = self.processor(
            images=list(frames.cpu().numpy()),
            input_data_format="channels_last",
            return_tensors="pt",
        )["pixel_values"].to(self.net.device)
        if self.projected:
            pooled = self.net.vision_model(pixel_values=pixels).pooler_output
            return self._unit(self.net.visual_projection(pooled))
        return self._unit(self.net(pixel_values=pixels).pooler_output)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """float32 `b d`, on the CPU; `truncated` says which were cut. One at a time, so that none
        depends on the others. InputError if the folder has no text tower or tokenizer."""
        if self.tokenizer is None:
            raise InputError(
                "this CLIP reads no text",
                why="the folder has no text tower, or no tokenizer beside it",
            )
        return torch.cat([self._embed_text(self.tokenizer, text) for text in texts])

    def _embed_text(self, tokenizer: CLIPTokenizer, text: str) -> Tensor:
        ids = tokenizer(text, truncation=True, max_length=self.context)["input_ids"]
        tokens = torch.tensor([ids], device=self.net.device)  # 1 l
        pooled = self.net.text_model(input_ids=tokens).pooler_output
        return self._unit(self.net.text_projection(pooled))

    def truncated(self, texts: list[str]) -> list[str]:
        """Those whose end the text tower never sees."""
        if self.tokenizer is None:
            return []
        count = {text: len(self.tokenizer(text, verbose=False)["input_ids"]) for text in texts}
        return [text for text in texts if count[text] > self.context]

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=-1).cpu()


class ClipExtractor:
    """A clip's feature: the mean over frames of their embeddings, which are of length 1."""

    name = "clip"
    min_frames = 1

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.clip = load_clip(folder, device)
        self.sha256, self.dim = self.clip.sha256, self.clip.dim
        self.settings = {"extractor": self.name, "frames": "mean of all", **self.clip.settings}

    def __call__(self, clips: Tensor) -> Tensor:
        embeds = self.clip.frames(rearrange(clips, "b t h w c -> (b t) h w c"))
        return rearrange(embeds, "(b t) d -> b t d", b=len(clips)).mean(dim=1)


def load_clip(folder: Path, device: torch.device) -> Clip:
    """The CLIP of a folder: config.json, safetensors or pytorch_model.bin, preprocessor_config.json
    and, for texts, a tokenizer's files. Nothing is downloaded. InputError if it is no CLIP, or
    weights are missing."""
    from transformers import CLIPImageProcessorPil, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # standard error is for what vidgen has to say
    kind = _kind(folder)
    weights = _weights(folder)
    if not (folder / PROCESSOR).is_file():
        raise InputError(f"{folder}: has no {PROCESSOR}", why="it says how frames are resized")
    try:
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        net = _network(folder, kind)
        tokenizer = None
        if kind == "CLIPModel" and any(all((folder / f).is_file() for f in t) for t in TOKENIZERS):
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (VidgenError, MemoryError):
        raise
    except Exception as error:  # the readers of weights and settings raise anything
        raise InputError(f"{folder}: not a CLIP", why=_first_line(error)) from None
    return Clip(net.to(device), processor, tokenizer, combined_sha256(weights))


def _kind(folder: Path) -> str:
    """The transformers class that the folder's config.json asks for."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type, named = config.get("model_type"), config.get("architectures") or []
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise InputError(
            f"{folder}: its config.json can't be read: {why}", why="a CLIP is a folder that has one"
        ) from None
    except (ValueError, AttributeError) as error:
        raise InputError(f"{folder}: its config.json is damaged", why=str(error)) from None
    if model_type == "clip":
        return "CLIPModel"
    if model_type == "clip_vision_model":
        projected = "CLIPVisionModelWithProjection"
        return projected if projected in named else "CLIPVisionModel"
    raise InputError(f"{folder}: holds a model of type {model_type!r}, not clip")


def _weights(folder: Path) -> list[Path]:
    """The files that transformers takes, the first kind of three that is there."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(weight_map(folder / INDEX).values()))]
    if (folder / PICKLE).is_file():
        return [folder / PICKLE]
    raise InputError(f"{folder}: has neither {SINGLE} nor {INDEX} nor {PICKLE}")


def _network(folder: Path, kind: str) -> Any:
    """In float32. What its files lack would be random, so it is an error."""
    import transformers

    net, info = getattr(transformers, kind).from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"its weights lack `{missing[0]}` and {len(missing) - 1} more")
    return net.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _plain(value: Any) -> Any:
    """As JSON has it: enumerations as their numbers, sizes as dictionaries."""
    if isinstance(value, int | float | str | bool | None):
        return value if isinstance(value, bool | str | float | None) else int(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in dict(value).items() if v is not None}
