"""What the systems share whose folders are diffusers' own, text encoder and all.

The module of such a system (`ModelFolder.released`) has:

    sampler(folder), geometry(folder)   how the folder's model is sampled, and what it makes, unless
                                        the user says otherwise; without weights
    load_tokenizer(folder), load_text_tower(folder, dtype)
    text_settings(folder)               what shapes its text beside the encoder, for the name of it
    run(folder, asked)                  one way of sampling it: a `Run`, which has read no weights
    load_autoencoder(folder)            its autoencoder, `encoded(vae, frames)`: its latents, and
                                        `decoded(vae, latents)`: its frames, chunk by chunk
    latent_sizes(folder)                their channels, and pixels of a side in one
    build_autoencoder(folder)           the same without weights, on the meta device
    decoder_width(folder)               channels of its decoder at the size of the pixels
    FLOAT32_VAE                         whether that is run in float32, as released
    layer_names(network)                names of layers in files of LoRA → the network's own
    LOADERS                             class in model_index.json → what loads it, for `verify`
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vidgen.diffusion.cond import Cond
from vidgen.diffusion.level import Levels
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Denoiser
from vidgen.diffusion.solvers import SOLVERS, Solver
from vidgen.errors import InputError, UsageError, is_out_of_memory
from vidgen.io import weights
from vidgen.io.windows import Window
from vidgen.nn.keys import differences, shapes
from vidgen.nn.meta import on_meta
from vidgen.nn.pixels import from_uint8
from vidgen.nn.text import Tokenizer
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.load import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Module = TypeVar("Module", bound=nn.Module)

ENCODERS = ("T5EncoderModel", "UMT5EncoderModel")
# What transformers reads spiece.model with: the package to install → its module.
SPIECE_NEEDS = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}


@dataclass(frozen=True)
class Asked:
    """What the user may set; None means the folder's own."""

    picture: bool = False  # whether the clip is to begin with one
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    solver: str | None = None
    shift: float | None = None

    def made(self, own: Geometry) -> Geometry:
        """What is to be made."""
        return Geometry(
            own.num_frames if self.num_frames is None else self.num_frames,
            own.height if self.height is None else self.height,
            own.width if self.width is None else self.width,
            own.fps,
        )


# What a picture that a clip begins with becomes, for the samples of a batch: more conditions.
Pictured: TypeAlias = Callable[[Noise], dict[str, Tensor]]


@dataclass(frozen=True)
class Run:
    """How noise becomes latents of a clip, before any weights are read."""

    made: Geometry
    shape: tuple[int, int, int, int]  # `c t h w` to sample
    levels: Levels
    solve: Solver
    sampler: dict[str, Any]  # solver, steps, guidance and shift, for the log
    components: tuple[str, ...]  # networks, in the order that `denoiser` takes them
    load: Callable[[str, torch.dtype | None], nn.Module]  # one of them, on the CPU; None: its dtype
    windows: Callable[[str, nn.Module], Mapping[str, Window]]  # where its tensors lie in files
    build: Callable[[str], nn.Module]  # the same without weights, on the meta device
    text_dim: int
    text_tokens: int
    live: int  # numbers at the widest moment of a block, of a sample
    text: Callable[[Tensor, Tensor], Tensor]  # embeds `1 l d` and mask `1 l` → `1 n d`
    denoiser: Callable[[Sequence[nn.Module], Cond], Denoiser]  # guided away from the condition
    kept: Callable[[Tensor], Tensor] = lambda z: z  # of what was sampled, `b c t h w`
    # A parameter's name, the network's dtype → its own, where some stay float32.
    dtype_of: Callable[[str, torch.dtype], torch.dtype] = lambda name, dtype: dtype
    pictured: Callable[[np.ndarray, torch.device, torch.dtype], Pictured] | None = None

    @property
    def steps(self) -> int:
        return len(self.levels) - 1


def without_weights(build: Callable[[], Module]) -> Module:
    """What `build` makes, on the meta device: for its shapes and names."""
    with on_meta():
        return build().eval().requires_grad_(False)


def solver_named(name: str) -> Solver:
    """UsageError for a name that isn't in the table."""
    if name not in SOLVERS:
        raise UsageError(f"no solver `{name}`", next=f"one of: {', '.join(SOLVERS)}")
    return SOLVERS[name]


def require_sides(made: Geometry, step: tuple[int, int]) -> None:
    """UsageError, naming the two nearest sizes, for a height and width that don't divide."""
    if made.height % step[0] == 0 and made.width % step[1] == 0:
        return
    below = tuple(max(n // s, 1) * s for n, s in zip((made.height, made.width), step, strict=True))
    above = tuple(-(-n // s) * s for n, s in zip((made.height, made.width), step, strict=True))
    raise UsageError(
        f"{made.width}x{made.height} pixels, and sides must divide by {step[1]}x{step[0]}",
        next=f"--size {below[1]}x{below[0]} or {above[1]}x{above[0]}",
    )


# --- pictures -------------------------------------------------------------------------------------


def require_picture(folder: ModelFolder, *, given: bool, wanted: bool | None) -> None:
    """UsageError for a picture that the model has no use for, or one that it wants and hasn't.
    `wanted`: None where it does without as well."""
    if given and wanted is False:
        raise UsageError(
            f"--image: `{folder.name}` makes clips of text alone", next="leave --image out"
        )
    if wanted and not given:
        raise UsageError(
            f"`{folder.name}` is an image-to-video model, which makes nothing of text alone",
            next="--image FILE, which the clip begins with",
        )


def fitted(image: np.ndarray, made: Geometry) -> Tensor:
    """A picture `H W 3` uint8, resized (Lanczos) to what is made: `1 3 h w` in −1…1."""
    from PIL import Image

    size = made.width, made.height
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    return from_uint8(torch.from_numpy(np.array(resized))).permute(2, 0, 1)[None]


@torch.no_grad()
def clip_tokens(folder: ModelFolder, image: np.ndarray) -> Tensor:
    """What CLIP's last layer but one makes of the picture: `1 m c`, float32."""
    import transformers

    path = folder.component("image_encoder")
    folder.weight_files("image_encoder")
    processor = getattr(transformers, "CLIPImageProcessorPil", None)
    processor = processor or transformers.CLIPImageProcessor
    try:
        pixels = processor.from_pretrained(folder.path / "image_processor")(
            images=image, return_tensors="pt"
        )
        encoder = _pretrained("CLIPVisionModel", path)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: can't be loaded: {first_line(error)}") from None
    return encoder(**pixels, output_hidden_states=True).hidden_states[-2]


# --- text -----------------------------------------------------------------------------------------


def tokenizer(folder: ModelFolder, max_length: int, **how: Any) -> Tokenizer:
    """Out of tokenizer.json, or what transformers makes of spiece.model; `how`: as `Tokenizer`
    takes it."""
    path = folder.component("tokenizer")
    if not (path / "tokenizer.json").is_file() and not (path / "spiece.model").is_file():
        raise InputError(
            f"{path}: neither tokenizer.json nor spiece.model in it",
            why="encode-text needs it; other stages run without",
            next=f"vidgen models show {folder.path}",
        )
    try:
        if (path / "tokenizer.json").is_file():
            return Tokenizer(path / "tokenizer.json", max_length, **how)
        return Tokenizer(_of_sentencepiece(path), max_length, **how)
    except InputError:
        raise
    except Exception as error:  # tokenizers and sentencepiece raise nothing narrower
        raise InputError(f"{path}: can't be read: {first_line(error)}") from None


def _of_sentencepiece(path: Path) -> Any:
    """What transformers makes of spiece.model. InputError where a package that it wants for that
    isn't here."""
    absent = [pip for pip, module in SPIECE_NEEDS.items() if not _importable(module)]
    if absent:
        raise InputError(
            f"{path}: has only spiece.model, and to read that {' and '.join(absent)}"
            f" {'is' if len(absent) == 1 else 'are'} not installed",
            next=f"pip install {' '.join(absent)}, or put a tokenizer.json beside it",
        )
    import sentencepiece
    from transformers import T5TokenizerFast  # type: ignore[attr-defined]

    # transformers takes a damaged file for one of another library, and says so of that.
    sentencepiece.SentencePieceProcessor(model_file=str(path / "spiece.model"))
    return T5TokenizerFast.from_pretrained(path, local_files_only=True).backend_tokenizer


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package within one that isn't there
        return False


def load_encoder(folder: ModelFolder, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The text encoder, by transformers, on the CPU; nothing is ever downloaded. InputError for one
    of another class, or that transformers can't load whole."""
    path, config = folder.component("text_encoder"), folder.config("text_encoder")
    folder.weight_files("text_encoder")  # which says what is missing
    kind = (config.get("architectures") or [None])[0]
    if kind not in ENCODERS:
        raise InputError(
            f"{path}/config.json: a text encoder of class {kind}",
            next=f"known are: {', '.join(ENCODERS)}",
        )
    return _pretrained(kind, path, dtype)


def _pretrained(kind: str, path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A network of transformers, on the CPU. InputError where it can't be loaded whole."""
    import transformers
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        network, info = getattr(transformers, kind).from_pretrained(
            path, local_files_only=True, dtype=dtype, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # safetensors raises its own
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: can't be loaded: {first_line(error)}") from None
    finally:
        logging.set_verbosity(level)
    if wrong := _differences(network, info, path):
        raise InputError(
            f"{path}: the weights are not those of its config.json: {'; '.join(wrong)}",
            next=f"vidgen models verify {path.parent}",
        )
    return network.eval().requires_grad_(False)


def _differences(network: nn.Module, info: Mapping[str, Any], path: Path) -> list[str]:
    """Of what transformers says of loading a network: what is missing, too much, or of another
    shape."""
    own = shapes(network.state_dict())
    expected = {name: own[name] for name in sorted(info["missing_keys"])}
    found: dict[str, tuple[int, ...]] = {}
    if extra := set(info["unexpected_keys"]):
        files = (weights.blobs(file) for file in path.glob("*.safetensors"))
        there = {name: tuple(blob.shape) for file in files for name, blob in file.items()}
        found = {name: there.get(name, ()) for name in sorted(extra)}
    for name, theirs, ours in sorted(info["mismatched_keys"]):
        found[name], expected[name] = tuple(theirs), tuple(ours)
    return differences(expected, found)


_QUOTES = {ord(c): "'" for c in "\u02bc\u2018\u2019\u201a\u201b"} | {
    ord(c): '"' for c in "\u201c\u201d\u201e\u201f"
}
_WIDTHS: Mapping[int, str] = {0x3000: " "} | {
    i: unicodedata.normalize("NFKC", chr(i)) for i in range(0xFF01, 0xFFF0)
}
_LIGATURES: Mapping[int, str] = {
    i: unicodedata.normalize("NFKC", chr(i))
    for i in (0x132, 0x133, *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), *range(0xFB00, 0xFB07))
} | {0x149: "'n", 0xFB05: "\u017ft"}
# Of no width and no meaning in a prompt: controls but tab and line breaks, marks of byte order,
# shaping and annotation.
_CONTROLS: Mapping[int, None] = dict.fromkeys(
    i
    for i in (*range(0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD))
    if i not in (0x9, 0xA, 0xC, 0xD)
)
_CLEANED = {**_WIDTHS, **_QUOTES, **_LIGATURES, **_CONTROLS}


def whitespace_cleaned(text: str) -> str:
    """A prompt as Wan reads it: entities of HTML resolved, straight quotes, letters of one width
    without ligatures, no control characters, composed (NFC), and single spaces.

    Released code has ftfy for most of that, which also guesses at text that was decoded wrongly;
    we don't.
    """
    text = html.unescape(html.unescape(text))
    text = unicodedata.normalize("NFC", text.translate(_CLEANED))
    return re.sub(r"\s+", " ", text).strip()
