"""Networks and sampler settings out of a model folder: how every system loads its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor, nn

from vidgen.diffusion import guidance
from vidgen.diffusion.cond import Cond
from vidgen.diffusion.level import Levels
from vidgen.diffusion.prediction import PREDICTIONS, Denoiser, Prediction
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import EVALUATIONS, SOLVERS, Solver
from vidgen.errors import InputError, UsageError
from vidgen.io import weights
from vidgen.io.windows import Window, windows
from vidgen.nn.group_dit import GroupDiT, GroupDiTConfig
from vidgen.nn.keys import Shapes, differences, shapes
from vidgen.nn.meta import on_meta
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems.base import SCHEDULER, ClipSampler, ModelFolder, PixelSampler, Sampler

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)


def filled(network: type, config: type, folder: ModelFolder, component: str):
    """Build on the meta device and let the weights be the memory map of the file. InputError for a
    config that builds no network, or another one than that of the weights."""
    path = folder.place(component)
    made: Any = sizes(network, config, folder, component)
    with on_meta():
        module = built(lambda: network(made), f"{path}/config.json", network.__name__)
    state: dict[str, Tensor] = {}
    for file in folder.weight_files(component):
        state.update(weights.load_safetensors(file))
    expected = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    found = {name: tuple(x.shape) for name, x in state.items()}
    if wrong := weights.mismatches(expected, found):
        raise InputError(
            f"{path}: the weights are not those of its config.json: {'; '.join(wrong)}",
            next=f"vidgen models verify {folder.name}",
        )
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def filled_released(
    build: Callable[[], Module],
    released: Callable[[Iterable[str]], Mapping[str, str]],
    folder: ModelFolder,
    component: str,
) -> Module:
    """The same where files name tensors as they were released: `released` takes our names and gives
    ours → theirs. InputError for a config that builds no network, or for other tensors than its
    network's, by the names that the files have."""
    path = folder.place(component)
    with on_meta():
        module = built(build, f"{path}/config.json")
    own = module.state_dict()
    names = released(own)
    state: dict[str, Tensor] = {}
    for file in folder.weight_files(component):
        state.update(weights.load_safetensors(file))
    _require_same(path, {names[name]: tuple(x.shape) for name, x in own.items()}, shapes(state))
    module.load_state_dict({name: state[theirs] for name, theirs in names.items()}, assign=True)
    return module.eval().requires_grad_(False)


def released_windows(
    network: nn.Module,
    released: Callable[[Iterable[str]], Mapping[str, str]],
    folder: ModelFolder,
    component: str,
) -> dict[str, Window]:
    """Where each tensor of such a network lies in the component's files. InputError as above."""
    found: dict[str, Window] = {}
    for file in folder.weight_files(component):
        found.update(windows(file))
    own = network.state_dict()
    names = released(own)
    expected = {names[name]: tuple(x.shape) for name, x in own.items()}
    _require_same(folder.place(component), expected, {n: w.shape for n, w in found.items()})
    return {name: found[theirs] for name, theirs in names.items()}


def _require_same(path: Path, expected: Shapes, found: Shapes) -> None:
    if wrong := differences(expected, found):
        raise InputError(
            f"{path}: the weights are not those of its config.json: {'; '.join(wrong)}"
        )


def built(build: Callable[[], T], where: str, what: str = "network") -> T:
    """What `build` gives; InputError for sizes that make none."""
    try:
        return build()
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise InputError(f"{where}: builds no {what}: {first_line(error)}") from None


def sizes(network: type, kind: type[T], folder: ModelFolder, component: str) -> T:
    """The dataclass of the network's sizes, out of the component's config; keys that it doesn't
    have don't count. InputError for sizes that make no network."""
    known = {
        k: v for k, v in folder.config(component).items()
        if k in kind.__dataclass_fields__  # type: ignore[attr-defined]
    }  # fmt: skip
    return built(lambda: kind(**known), f"{folder.place(component)}/config.json", network.__name__)


def kind_of(
    folder: ModelFolder, component: str, kinds: Mapping[str, tuple[type, type]], default: str
) -> tuple[type, type]:
    """The network, and the dataclass of its sizes, that the component's config names among these;
    `default` where it names none. InputError for a name that isn't one of theirs."""
    name = folder.config(component).get("_class_name", default)
    if name not in tuple(kinds):
        raise InputError(
            f"{folder.place(component)}/config.json: _class_name is `{name}`, must be"
            f" {' or '.join(kinds)}"
        )
    return kinds[name]


# Networks that work on latents of clips, by the class that their config.json names.
CLIP_NETWORKS: dict[str, tuple[type, type]] = {
    "UNet": (UNet, UNetConfig), "GroupDiT": (GroupDiT, GroupDiTConfig),
}  # fmt: skip
UNET = "UNet"  # what a config that names none is of


@dataclass(frozen=True)
class ClipNetwork:
    """A network that works on latents of clips and isn't loaded yet: all that is known without its
    weights."""

    folder: ModelFolder
    component: str
    settings: ClipSampler
    config: Any

    KINDS: ClassVar[tuple[str, ...]] = (UNET,)  # of CLIP_NETWORKS

    @classmethod
    def found(
        cls, folder: ModelFolder, component: str, settings: type[ClipSampler],
        channels: tuple[int, int],
    ) -> Self:  # fmt: skip
        """InputError if the model has no such component, or one that takes and gives other
        `channels` than its latents want, or that makes no sense."""
        path = folder.place(component)
        sample = folder.sample(component, settings)
        config: Any = sizes(*cls._kind(folder, component), folder, component)
        for key, wanted in zip(("in_channels", "out_channels"), channels, strict=True):
            own = folder.size(component, key)
            if own != wanted:
                raise InputError(
                    f"{path}/config.json: {key} is {own}, latents of"
                    f" {folder.size('vae', 'channels')} channels want {wanted}"
                )
        if 0 < config.skip_rows <= sample.max_skip:
            raise InputError(
                f"{path}/config.json: sample.max_skip is {sample.max_skip}, and skip_rows"
                f" {config.skip_rows}"
            )
        network = cls(folder, component, sample, config)
        for key, table in (
            ("prediction", PREDICTIONS), ("schedule", SCHEDULES), ("solver", SOLVERS),
        ):  # fmt: skip
            network._named(key, table)
        return network

    @property
    def identity(self) -> dict[str, str]:
        return self.folder.identity(self.component)

    @classmethod
    def _kind(cls, folder: ModelFolder, component: str) -> tuple[type, type]:
        return kind_of(folder, component, {k: CLIP_NETWORKS[k] for k in cls.KINDS}, UNET)

    def load(self) -> nn.Module:
        """The network, in the dtype of its weights, on the CPU."""
        kind = self._kind(self.folder, self.component)
        return filled(*kind, self.folder, self.component)

    def levels(self, num_inference_steps: int) -> Levels:
        """The noise levels of a sampling run, noisiest first."""
        schedule = self._named("schedule", SCHEDULES)
        return schedule(num_inference_steps, **_settings(schedule, self.settings, ("shift",)))

    def solver(self) -> Solver:
        return self._named("solver", SOLVERS)

    def prediction(self) -> Prediction:
        """What the network's output means."""
        return self._named("prediction", PREDICTIONS)()

    def _named(self, key: str, table: Any) -> Any:
        path = self.folder.place(self.component) / "config.json"
        return named(key, table, self.settings, path)


def prediction(folder: ModelFolder) -> Prediction:
    """What the output of the model's network means."""
    kind = _own("prediction", PREDICTIONS, folder)
    return kind(**_settings(kind, folder.sampler, ("sigma_data",)))


def solver(folder: ModelFolder, name: str | None = None) -> Solver:
    """The solver of that name, or the model's own."""
    if name is None:
        return _own("solver", SOLVERS, folder)
    if name not in SOLVERS:
        raise UsageError(f"no solver `{name}`", next=f"one of: {', '.join(SOLVERS)}")
    return SOLVERS[name]


def levels(folder: ModelFolder, num_inference_steps: int, shift: float | None = None) -> Levels:
    """The noise levels of a sampling run, noisiest first. `shift`: None for the model's own, where
    its schedule has one; UsageError for one where it hasn't."""
    schedule = _own("schedule", SCHEDULES, folder)
    if shift is not None and "shift" not in signature(schedule).parameters:
        raise UsageError(
            f"--shift {shift:g}: the schedule of `{folder.name}`, {folder.sampler.schedule},"
            " has no shift",
            next="leave --shift out",
        )
    sampler = folder.sampler if shift is None else replace(folder.sampler, shift=shift)
    return levels_of(sampler, num_inference_steps)


def levels_of(sampler: Sampler, num_inference_steps: int) -> Levels:
    """The noise levels of a sampling run with these settings."""
    schedule = SCHEDULES[sampler.schedule]
    settings = _settings(schedule, sampler, ("shift", "sigma_in"))
    return schedule(num_inference_steps, **settings)


def guided(
    denoise: Denoiser,
    uncond: Cond,
    sampler: Sampler,
    levels: Levels,
    scale: float | None = None,
    solver: str | None = None,
) -> Denoiser:
    """The denoiser with the sampler's guidance away from `uncond`, at these levels, and with what
    keeps pixels from saturating. `scale` and `solver`: instead of the sampler's own; a scale of 1
    is no guidance."""
    return thresholded(steered(denoise, uncond, sampler, levels, scale, solver), sampler)


def steered(
    denoise: Denoiser,
    uncond: Cond,
    sampler: Sampler,
    levels: Levels,
    scale: float | None = None,
    solver: str | None = None,
) -> Denoiser:
    """The same before anything is clipped: what other guidance takes a gradient of."""
    scale = sampler.guidance_scale if scale is None else scale
    own = sampler if isinstance(sampler, PixelSampler) else None
    plain = denoise
    if own is None or own.low_guidance_scale is None or scale == 1:
        denoise = guidance.cfg(denoise, uncond, scale)
    else:
        low = own.low_guidance_scale
        denoise = guidance.oscillating_cfg(
            denoise, uncond, scale, low, levels, own.hold,
            looks_ahead=EVALUATIONS.get(solver or sampler.solver, 1) == 2,
        )  # fmt: skip
    return within(denoise, plain, sampler)


def thresholded(denoise: Denoiser, sampler: Sampler, known: Tensor | None = None) -> Denoiser:
    """The denoiser with its estimates clipped where the sampler wants that, but for numbers that
    are `known`."""
    if not isinstance(sampler, PixelSampler) or sampler.threshold is None:
        return denoise
    return guidance.dynamic_threshold(denoise, sampler.threshold, known=known)


def within(guided: Denoiser, plain: Denoiser, sampler: Sampler) -> Denoiser:
    """`guided` at the noise levels where the sampler wants guidance, else `plain`."""
    if sampler.guidance_min_sigma is None:
        return guided
    return guidance.only_between(guided, plain, sampler.guidance_min_sigma, math.inf)


def _settings(wants: Callable[..., Any], sampler: Sampler, names: tuple[str, ...]) -> dict:
    """Those of the sampler's settings that it takes."""
    return {k: getattr(sampler, k) for k in names if k in signature(wants).parameters}


def _own(key: str, table: Mapping[str, T], folder: ModelFolder) -> T:
    """What the model's sampler names with a key; InputError for a name that isn't in the table."""
    return named(key, table, folder.sampler, folder.path / SCHEDULER)


def named(key: str, table: Mapping[str, T], sampler: Sampler, path: Path) -> T:
    """What the sampler of the file `path` names with a key; InputError for a name that isn't in
    the table."""
    name = getattr(sampler, key)
    if name not in table:
        raise InputError(f"{path}: no {key} is called `{name}`", next=f"one of: {', '.join(table)}")
    return table[name]


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
