"""Stages from latents to latents: what interpolation and upsampling have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Denoiser
from vidgen.errors import UsageError
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn import attention
from vidgen.stages.base import Compute, Loading, Notify, accelerated, batched
from vidgen.stages.sample_keyframes import own_seed
from vidgen.systems.base import ClipSampler
from vidgen.systems.load import ClipNetwork

N = TypeVar("N", bound=ClipNetwork)


class Choices:
    """What the user may set: the base of a stage's dataclass of choices."""

    method: str
    num_inference_steps: int | None

    METHODS: ClassVar[tuple[str, ...]]
    FORMULAS: ClassVar[Mapping[str, str]]  # methods without a network → what they do

    def check(self) -> None:
        """UsageError for what can't be, and for settings that the method has no use for."""
        if self.method not in self.METHODS:
            said = f"one of: {', '.join(self.METHODS)}"
            raise UsageError(f"no method `{self.method}`", next=said)
        for flag, value in self.sampling().items():
            if self.method in self.FORMULAS and value is not None:
                raise UsageError(
                    f"{flag} {value:g}: --method {self.method} {self.FORMULAS[self.method]}",
                    next=f"leave {flag} out",
                )

    def argv(self) -> list[str]:
        """These choices as canonical flags, for the log."""
        flags = self.shaping() | self.sampling()
        if self.method != self.METHODS[0]:
            flags["--method"] = self.method
        return [x for k, v in sorted(flags.items()) if v is not None for x in (k, str(v))]

    def shaping(self) -> dict[str, Any]:
        """Flags that every method has a use for; None where the value is the default."""
        raise NotImplementedError

    def sampling(self) -> dict[str, Any]:
        """Flags of sampling from a network; None where the model decides."""
        return {"--steps": self.num_inference_steps}


@dataclass(frozen=True)
class Method(Generic[N]):
    """How a stage makes its latents: with a network, or by a formula alone."""

    choices: Choices
    network: N | None = None
    loading: Loading | None = None
    steps: int = 0

    @property
    def computes(self) -> bool:
        """Whether a network takes part."""
        return self.network is not None

    def described(self) -> dict[str, Any]:
        """The log's words for it."""
        words: dict[str, Any] = {"method": self.choices.method}
        if self.network is not None:
            words |= {"model": self.network.identity, "steps": self.steps}
        return words


def loading(network: ClipNetwork, compute: Compute) -> Loading:
    """The network, on the CPU."""
    return Loading(lambda: accelerated(network.load(), compute), now=compute.preload)


def alike(records: Iterable[Record], batch_size: int) -> Iterator[list[Record]]:
    """The records in their order, up to so many at once whose latents have one shape."""
    for batch in batched(records, batch_size):
        for _, clips in groupby(batch, key=lambda record: record["latents"].shape):
            yield list(clips)


def source(record: Record) -> tuple[int, str]:
    """The seed, and the id of what it was sampled from: with several seeds that has no -s."""
    name = record.attrs.get("source")
    return own_seed(record) or 0, name if isinstance(name, str) else record.id


def told_skip(record: Record, seconds: float, network: ClipNetwork, notify: Notify) -> int:
    """The skip-frame number for frames so far apart; warns where the network knows none like it."""
    settings: ClipSampler = network.settings
    skip = settings.skip(seconds)
    if abs(skip - seconds * settings.fps) > 0.5:
        notify.warn(
            f"`{record.id}`: {seconds:.4g} s from frame to frame is outside of what"
            f" `{network.folder.name}` was trained on,"
            f" {1 / settings.fps:.4g} to {settings.max_skip / settings.fps:.4g} s;"
            f" it is told {skip / settings.fps:.4g} s"
        )
    return skip


def placed(method: Method, compute: Compute) -> nn.Module:
    """The method's network, on the device and in the dtype."""
    assert method.loading is not None
    return method.loading.get().to(device=compute.torch_device(), dtype=compute.torch_dtype())


def sampled(
    method: Method,
    denoise: Denoiser,
    noise: Noise,
    shape: tuple[int, ...],
    cond: Any,
    compute: Compute,
    notify: Notify,
) -> tuple[Tensor, set[str]]:
    """What the method's solver makes of noise, `b *shape`, float32, on the CPU; and the attention
    kernels that were used."""
    system = method.network
    assert system is not None
    levels = system.levels(method.steps)
    z = noise.initial(shape).to(compute.torch_device()) * levels[0].sigma
    with attention.kernel(compute.attention) as used, torch.no_grad():
        for step in system.solver()(denoise, z, levels, cond, noise):
            z = step.z
            notify.step(step.i + 1, len(levels) - 1, "step")
    return z.float().cpu(), set(used)


def entry(
    stage: str,
    record: Record,
    method: Method,
    used: set[str],
    compute: Compute,
    **more: Any,
) -> dict[str, Any]:
    """What a stage says of itself in the log."""
    sampled = method.network is not None
    return log.new_entry(
        stage,
        argv=[stage, *method.choices.argv()],
        seed=source(record)[0] if sampled else None,
        attention="+".join(sorted(used)) or None,
        **(compute.accelerations() if sampled else {}),
        inputs=[record.digest],
        **method.described(),
        **(compute.described() if method.computes else {}),
        **more,
    )
