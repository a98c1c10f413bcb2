"""Model folders: where a system's weights and settings are, and what they are called.

A folder follows diffusers: `model_index.json` names the components, each in a folder of its own
with a JSON config and safetensors weights. Everything that can be known without the weights
(latent space, text encoder, sizes, sampler defaults) is known here without importing torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vidgen.errors import InputError, UsageError
from vidgen.io import weights

SHIPPED = Path(__file__).parent.parent / "models"
DEFAULT = "world"
SCHEDULER = "scheduler/scheduler_config.json"
PIXELS = "pixels"  # the latent space of models without an autoencoder: colors, −1 … 1

# How an interpolation network sees groups (`vidgen.diffusion.groups`) → the component of a model
# folder that holds such a network.
INTERPOLATIONS = {"grouped": "interpolation", "masked": "interpolation_masked"}
# How many times longer upsampling makes the sides → how often it doubles them.
DOUBLINGS = {2: 1, 4: 2, 8: 3}

S = TypeVar("S")


@dataclass(frozen=True)
class Sampler:
    """How a model is sampled unless the user says otherwise (`scheduler/scheduler_config.json`)."""

    prediction: str
    schedule: str
    solver: str
    num_inference_steps: int
    guidance_scale: float
    shift: float = 1.0  # of schedules that have one
    sigma_in: float = 1.0  # of `snap`: by how much the signal is shrunk
    sigma_data: float = 0.5  # of `edm` and `snap`: spread of the data


@dataclass(frozen=True)
class ClipSampler(Sampler):
    """The same of a network that is told how far apart the frames of a clip are."""

    fps: float = 24.0  # the rate that skips count frames of
    max_skip: int = 12  # the largest that it was trained on; the smallest is 1

    def skip(self, spacing: float) -> int:
        """The skip-frame number of frames `spacing` seconds apart: to the nearest frame, within
        what the network knows."""
        return min(max(round(spacing * self.fps), 1), self.max_skip)


@dataclass(frozen=True)
class Geometry:
    """What a transformer makes: `num_frames` keyframes of `height` × `width` at `fps`."""

    num_frames: int
    height: int
    width: int
    fps: float

    @property
    def times(self) -> list[float]:
        """Seconds of each keyframe."""
        return [i / self.fps for i in range(self.num_frames)]


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk. Components are checked when asked for, so that a folder without a text
    encoder still decodes."""

    path: Path

    @classmethod
    def find(cls, name: str | None = None) -> ModelFolder:
        """A folder's path, a name among the shipped models, or None for the default model."""
        name = name or DEFAULT
        for path in (SHIPPED / name, Path(name)):
            if (path / "model_index.json").is_file():
                return cls(path.resolve())
        if Path(name).is_dir():
            raise InputError(
                f"{name}: a folder without model_index.json, so not a model",
                next="vidgen models",
            )
        raise UsageError(
            f"no model called `{name}`",
            why=f"neither a folder nor one of: {', '.join(shipped_names()) or 'none'}",
            next="vidgen models",
        )

    @cached_property
    def index(self) -> dict[str, Any]:
        return self._json("model_index.json")

    @property
    def name(self) -> str:
        return self.index.get("name", self.path.name)

    @property
    def system(self) -> str:
        return self.index.get("system", "world")

    def component(self, name: str) -> Path:
        """The component's folder; InputError if the model has none."""
        folder = self.path / name
        if not (folder / "config.json").is_file() and name != "tokenizer":
            raise InputError(
                f"{self.path}: no component `{name}`",
                why="this stage needs it; other stages may run without",
                next=f"vidgen models show {self.name}",
            )
        return folder

    def config(self, component: str) -> dict[str, Any]:
        """The component's `config.json`."""
        self.component(component)
        return self._json(f"{component}/config.json")

    def weight_files(self, component: str) -> list[Path]:
        """The component's safetensors files; several when it is sharded."""
        files = sorted(self.component(component).glob("*.safetensors"))
        if not files:
            raise InputError(f"{self.path / component}: no *.safetensors in it")
        return files

    def sha256(self, component: str) -> str:
        """One hash for the component's weights, remembered between runs."""
        return weights.combined_sha256(self.weight_files(component))

    def identity(self, component: str) -> dict[str, str]:
        """What the log says of a component: its model's name and its weights' hash."""
        return {"name": f"{self.name}/{component}", "sha256": self.sha256(component)}

    @property
    def in_pixels(self) -> bool:
        """Whether it makes pixels: it has a network, and no autoencoder."""
        return "transformer" in self.index and "vae" not in self.index

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """Channels of its latents, and how many pixels wide and high one stands for."""
        if self.in_pixels:
            return 3, 1
        return self.size("vae", "channels"), self.size("vae", "stride")

    @cached_property
    def latent_space(self) -> str:
        """The name of this autoencoder's latents: its config and weights, hashed; or PIXELS."""
        if self.in_pixels:
            return PIXELS
        return weights.content_id(f"{self.name}-vae", self.config("vae"), self.sha256("vae"))

    @cached_property
    def text_encoder(self) -> str:
        """The name of this text encoder's vectors."""
        config, digest = self.config("text_encoder"), self.sha256("text_encoder")
        return weights.content_id(f"{self.name}-text", config, digest)

    @cached_property
    def sampler(self) -> Sampler:
        return _settings(Sampler, self._json(SCHEDULER), f"{self.path / SCHEDULER}: ")

    @cached_property
    def geometry(self) -> Geometry:
        return self.sample("transformer", Geometry)

    def sample(self, component: str, kind: type[S]) -> S:
        """What the component's config says of sampling with it, under `sample`."""
        where = f"{self.path / component}/config.json: "
        sample = self.config(component).get("sample")
        if not isinstance(sample, dict):
            raise InputError(f"{where}no `sample`, which says what the network makes")
        return _settings(kind, sample, f"{where}sample.")

    def size(self, component: str, key: str) -> int:
        """A whole number above zero in the component's config."""
        value = self.config(component).get(key)
        return _checked("int", value, f"{self.path / component}/config.json: {key}")

    def _json(self, relative: str) -> dict[str, Any]:
        path = self.path / relative
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: missing from the model folder") from None
        except OSError as e:
            raise InputError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None
        except (ValueError, RecursionError) as e:
            raise InputError(f"{path}: not JSON: {e}") from None
        if not isinstance(found, dict):
            raise InputError(f"{path}: not a JSON object")
        return found


def _settings(kind: type[S], values: dict[str, Any], where: str) -> S:
    """A dataclass of what a model's JSON says; InputError, naming the key, for what is missing or
    makes no sense. Keys that it doesn't have don't count."""
    found = {}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name in values or f.default is MISSING:
            found[f.name] = _checked(str(f.type), values.get(f.name), where + f.name)
    return kind(**found)


def _checked(kind: str, value: Any, where: str) -> Any:
    """The value, if it is of the kind: text, a whole number or a number, both above zero."""
    if kind == "str":
        word, fits = "text", isinstance(value, str)
    else:
        word = "a whole number above 0" if kind == "int" else "a number above 0"
        number = isinstance(value, int if kind == "int" else int | float)
        fits = number and not isinstance(value, bool) and 0 < value < math.inf
    if not fits:
        raise InputError(f"{where} is {json.dumps(value)}, must be {word}")
    return value


def shipped_names() -> list[str]:
    """Models that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/model_index.json"))
