"""Model folders: where a system's weights and settings are, and what they are called.

A folder follows diffusers: `model_index.json` names the components, each in a folder of its own
with a JSON config and safetensors weights. Everything that can be known without the weights
(latent space, text encoder, sizes, sampler defaults) is known here without importing torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from vidgen.errors import InputError
from vidgen.io import model_names, weights

SHIPPED = Path(__file__).parent.parent / "models"
DEFAULT = "world"
SCHEDULER = "scheduler/scheduler_config.json"
PIXELS = "pixels"  # the latent space of models without an autoencoder: colors, −1 … 1

# How an interpolation network sees groups (`vidgen.diffusion.groups`) → the component of a model
# folder that holds such a network.
INTERPOLATIONS = {"grouped": "interpolation", "masked": "interpolation_masked"}
# How many times longer upsampling makes the sides → how often it doubles them.
DOUBLINGS = {2: 1, 4: 2, 8: 3}

# Pipelines of diffusers whose folders are read as they were released → the system that runs them,
# whose module knows what such a folder doesn't say (`vidgen.systems.released`).
RELEASED = {
    "WanPipeline": "wan",
    "WanImageToVideoPipeline": "wan",
    "CogVideoXPipeline": "cogvideox",
    "CogVideoXImageToVideoPipeline": "cogvideox",
}
OWN = "VidgenModel"  # the class of folders that are written here
# What a model that shares components was made for → the component that decides it.
LENT = {"latent_space": "vae", "text_encoder": "text_encoder"}

S = TypeVar("S")


@dataclass(frozen=True)
class Sampler:
    """How a model is sampled unless the user says otherwise (`scheduler/scheduler_config.json`).

    ValueError for a sigma_in or sigma_data that isn't above 0."""

    prediction: str
    schedule: str
    solver: str
    num_inference_steps: int
    guidance_scale: float
    shift: float = 1.0  # of schedules that have one
    sigma_in: float = 1.0  # of `snap`: by how much the signal is shrunk
    sigma_data: float = 0.5  # of `edm` and `snap`: spread of the data
    guidance_min_sigma: float | None = None  # no guidance at this sigma or below; None: at any

    def __post_init__(self) -> None:
        for key in ("sigma_in", "sigma_data"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} is {getattr(self, key):g}, must be above 0")


@dataclass(frozen=True)
class PixelSampler(Sampler):
    """The same of a model that makes pixels, and what keeps guidance from saturating them (Snap
    Video, §3.6; Imagen, Saharia et al. 2022, §2.3; Imagen Video, Ho et al. 2022, §3.6).

    ValueError for a threshold above 1."""

    threshold: float | None = None  # share of an estimate's numbers to keep unclipped; None: all
    low_guidance_scale: float | None = None  # in turn with guidance_scale; None: that alone
    hold: int = 1  # steps with guidance_scale before the low one has its first turn

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold:g}, must be above 0 and up to 1")


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
class Enlarged:
    """What the config of an upsampler of latents says of the pictures that it makes."""

    largest: int | None = None  # pixels high: the largest that it learned to make; None: not known

    def scale(self, height: int) -> int:
        """How many times longer the sides of pictures this high become unless the user says
        otherwise: as many as bring them to the largest that it learned to make; 2 where that is
        not known, or doubling doesn't bring them there."""
        if self.largest is not None and height >= self.largest:
            return 1
        return next((n for n in DOUBLINGS if n * height == self.largest), 2)


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
    encoder still decodes. A model that says so in `shared` has the components that it names and
    doesn't hold itself from the model of that name, beside it or shipped."""

    path: Path

    @classmethod
    def find(cls, name: str | None = None) -> ModelFolder:
        """A folder's path, a model's name (`vidgen.io.model_names` says which those are), or None
        for the default model."""
        path = SHIPPED / DEFAULT if name is None else model_names.find(name, SHIPPED)
        folder = cls(path.resolve())
        folder.require_known()
        return folder

    @cached_property
    def index(self) -> dict[str, Any]:
        return self._json("model_index.json")

    @property
    def name(self) -> str:
        return self.index.get("name", self.path.name)

    @property
    def system(self) -> str:
        return RELEASED.get(self._class, self.index.get("system", "world"))

    @property
    def _class(self) -> str:
        return str(self.index.get("_class_name") or OWN)

    @property
    def is_there(self) -> bool:
        return (self.path / "model_index.json").is_file()

    def require_known(self) -> None:
        """InputError for a pipeline of diffusers that nobody here runs."""
        if self._class not in (OWN, *RELEASED):
            raise InputError(
                f"{self.path}/model_index.json: a pipeline of class {self._class}, which is not"
                " known here",
                next=f"known are: {', '.join(RELEASED)}",
            )

    @property
    def released(self) -> Any:
        """The module of the system that runs a folder of diffusers' (`vidgen.systems.released` says
        what it has); None for a folder of ours."""
        if self._class not in RELEASED:
            return None
        return import_module(f"vidgen.systems.{self.system}")

    @cached_property
    def lender(self) -> ModelFolder | None:
        """The model that this one shares components with, if there is one. InputError where that is
        not to be found, or has other latents or another text encoder than this one was made for."""
        shared = self.index.get("shared")
        if shared is None:
            return None
        where = f"{self.path}/model_index.json: shared"
        if not isinstance(shared, dict) or not isinstance(shared.get("model"), str):
            raise InputError(f"{where} names no model")
        name = shared["model"]
        places = (home / name for home in (self.path.parent, SHIPPED))
        path = next((p for p in places if (p / "model_index.json").is_file()), None)
        if path is None:
            raise InputError(f"{where}: no model `{name}` beside it, and none is shipped")
        lender = ModelFolder(path.resolve())
        for key in LENT:
            if (wanted := shared.get(key)) not in (None, own := getattr(lender, key)):
                raise InputError(
                    f"{where}: made for the {key.replace('_', ' ')} `{wanted}`, and {path} has"
                    f" `{own}`",
                    next=f"train it with `{name}` as it is now",
                )
        return lender

    def owner(self, component: str) -> ModelFolder:
        """The model whose component it is: this one, or the one that it is shared with."""
        if (self.path / component).exists() or component not in self.index:
            return self
        return self.lender or self

    def place(self, component: str) -> Path:
        """The component's folder, whether it is there or not."""
        return self.owner(component).path / component

    def has(self, component: str) -> bool:
        """Whether the component is there, with its config and weights."""
        folder = self.place(component)
        return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))

    def component(self, name: str) -> Path:
        """The component's folder; InputError if the model has none."""
        folder = self.place(name)
        if not (folder / "config.json").is_file() and name != "tokenizer":
            raise InputError(
                f"{self.path}: no component `{name}`",
                why="this stage needs it; other stages may run without",
                next=f"vidgen models show {self.path}",
            )
        return folder

    def config(self, component: str) -> dict[str, Any]:
        """The component's `config.json`."""
        self.component(component)
        return self.owner(component)._json(f"{component}/config.json")

    def weight_files(self, component: str) -> list[Path]:
        """The component's safetensors files; several when it is sharded. Where there are variants
        of other precision beside them (`model.fp16.safetensors`), those without a word in their
        name. InputError where there are none, or one is missing or cut."""
        files = self._weight_files(component)
        for file in files:
            weights.require_whole(file)
        return files

    def require_whole(self, *components: str) -> None:
        """InputError for weights, of those of the components that are here, that are missing in
        part or cut: now, rather than when they are needed."""
        for name in components:
            if self.has(name):
                self.weight_files(name)

    def _weight_files(self, component: str) -> list[Path]:
        folder = self.component(component)
        if indexes := _plainest(folder.glob(f"*{weights.INDEX}"), weights.INDEX):
            files = [folder / name for name in sorted({*weights.weight_map(indexes[0]).values()})]
            if missing := [file.name for file in files if not file.is_file()]:
                raise InputError(
                    f"{folder}: shard {missing[0]} is missing, one of {len(files)}",
                    next="fetch the model again",
                )
            return files
        files = _plainest(folder.glob("*.safetensors"), ".safetensors")
        if not files:
            raise InputError(
                f"{folder}: no *.safetensors in it",
                why="weights in other files are not read" if any(folder.glob("*.bin")) else None,
                next=f"vidgen models show {self.path}",
            )
        return files

    def sha256(self, component: str) -> str:
        """One hash for the component's weights, remembered between runs."""
        return weights.combined_sha256(self.weight_files(component))

    def identity(self, component: str) -> dict[str, str]:
        """What the log says of a component: its model's name and its weights' hash."""
        maker = self.owner(component)._maker
        return {"name": f"{maker}/{component}", "sha256": self.sha256(component)}

    @property
    def in_pixels(self) -> bool:
        """Whether it makes pixels: it has a network, and no autoencoder."""
        return "transformer" in self.index and "vae" not in self.index

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """Channels of its latents, and how many pixels wide and high one stands for."""
        if self.released:
            return self.released.latent_sizes(self)
        if self.in_pixels:
            return 3, 1
        return self.size("vae", "channels"), self.size("vae", "stride")

    @cached_property
    def latent_space(self) -> str:
        """The name of this autoencoder's latents: its config and weights, hashed; or PIXELS."""
        if self.in_pixels:
            return PIXELS
        maker = self.owner("vae")._maker
        return weights.content_id(f"{maker}-vae", self.config("vae"), self.sha256("vae"))

    @cached_property
    def text_encoder(self) -> str:
        """The name of this text encoder's vectors."""
        config, digest = self.config("text_encoder"), self.sha256("text_encoder")
        if self.released:
            config = config | self.released.text_settings(self)
        maker = self.owner("text_encoder")._maker
        return weights.content_id(f"{maker}-text", config, digest)

    @property
    def _maker(self) -> str:
        """What components are named for: of released folders the system, since several hold the
        same ones, and may lie in folders of any name."""
        return self.system if self.released else self.name

    @cached_property
    def sampler(self) -> Sampler:
        if self.released:
            return self.released.sampler(self)
        kind = PixelSampler if self.in_pixels else Sampler
        return _settings(kind, self._json(SCHEDULER), f"{self.path / SCHEDULER}: ")

    @cached_property
    def geometry(self) -> Geometry:
        if self.released:
            return self.released.geometry(self)
        return self.sample("transformer", Geometry)

    @property
    def world_level(self) -> str | None:
        """The level of the world whose captions the model learned from, as its config says. "full"
        where a `world` says none; None where another does: it may know any word."""
        sample = self.config("transformer").get("sample") if self.has("transformer") else None
        level = sample.get("level") if isinstance(sample, dict) else None
        if level in ("basic", "full"):
            return level
        return "full" if self.system == "world" else None

    def sample(self, component: str, kind: type[S]) -> S:
        """What the component's config says of sampling with it, under `sample`."""
        where = f"{self.place(component)}/config.json: "
        sample = self.config(component).get("sample")
        if not isinstance(sample, dict):
            raise InputError(f"{where}no `sample`, which says what the network makes")
        return _settings(kind, sample, f"{where}sample.")

    def size(self, component: str, key: str) -> int:
        """A whole number above zero in the component's config."""
        value = self.config(component).get(key)
        return _checked("int", value, f"{self.place(component)}/config.json: {key}")

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


def _plainest(paths: Iterable[Path], suffix: str) -> list[Path]:
    """In order; only those without a dot before the suffix, if there are any."""
    files = sorted(paths)
    plain = [p for p in files if "." not in p.name.removesuffix(suffix)]
    return plain or files


def _settings(kind: type[S], values: dict[str, Any], where: str) -> S:
    """A dataclass of what a model's JSON says; InputError, naming the key, for what is missing or
    makes no sense. Keys that it doesn't have don't count."""
    found = {}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name in values or f.default is MISSING:
            found[f.name] = _checked(str(f.type), values.get(f.name), where + f.name)
    try:
        return kind(**found)
    except ValueError as error:
        raise InputError(f"{where}{error}") from None


def _checked(kind: str, value: Any, where: str) -> Any:
    """The value, if it is of the kind: text, a whole number or a number, both above zero; or null
    where there may be none."""
    kind, _, none = kind.partition(" | ")
    if none and value is None:
        return None
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
