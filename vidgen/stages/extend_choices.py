"""What `vidgen extend` is asked for, and what becomes of each record: all of it checked before any
weights are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vidgen.diffusion import windows
from vidgen.diffusion.windows import Window
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.stages.base import FLOATS, Notify, require_kind, require_tensor
from vidgen.stages.decode import require_space
from vidgen.stages.interpolate import UNEVEN
from vidgen.stages.sample_keyframes import own_seed, require_text
from vidgen.systems.base import ModelFolder


@dataclass(frozen=True)
class Choices:
    """What the user may set; None means the record's own, or the model's."""

    num_frames: int | None = None  # of the result
    fps: float | None = None  # of the result
    overlap: int = 1  # known frames that a window begins with, where the clip grows
    weight: float = 2.0  # of the reconstruction error, times `guidance.certain`
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def check(self) -> None:
        """UsageError for what no model can do."""
        if self.num_frames is None and self.fps is None:
            raise UsageError(
                "neither a length nor a rate is asked for", next="--num-frames N, --fps N, or both"
            )

    def check_for(self, folder: ModelFolder) -> None:
        """UsageError for what this model can't do with any record."""
        self.check()
        if folder.released:
            raise UsageError(
                f"`{folder.name}`: a model of {folder.system}, whose latents stand for several"
                " frames each",
                why="frames that are known must be latents of their own",
                next="vidgen extend --model world …",
            )
        size = folder.geometry.num_frames
        if not 0 < self.overlap < size:
            raise UsageError(
                f"--overlap {self.overlap}: `{folder.name}` makes {size} frames at once, and some"
                " of them must be new",
                next=f"--overlap 1 to {size - 1}" if size > 1 else "another model",
            )

    def argv(self) -> list[str]:
        """These choices as canonical flags, for the log."""
        flags = {
            "--fps": None if self.fps is None else f"{self.fps:g}",
            "--guidance-scale": self.guidance_scale,
            "--num-frames": self.num_frames,
            "--overlap": None if self.overlap == 1 else self.overlap,
            "--steps": self.num_inference_steps,
            "--weight": None if self.weight == 2 else f"{self.weight:g}",
        }
        return [x for k, v in flags.items() if v is not None for x in (k, str(v))]


@dataclass(frozen=True)
class Plan:
    """What becomes of a clip: its own rate in frames a second, how long it grows at that rate, and
    by what that rate is multiplied then, one factor after the other."""

    have: int
    fps: float
    length: int
    factors: tuple[int, ...]

    @property
    def num_frames(self) -> int:
        return math.prod(self.factors) * (self.length - 1) + 1

    def passes(self, size: int, overlap: int) -> Iterator[tuple[float, list[Window], int]]:
        """The rate that windows of a pass are told, the windows, and the factor of the rate (1
        where the clip grows)."""
        if self.length > self.have:
            yield self.fps, windows.onwards(self.have, self.length, size, overlap), 1
        count, fps = self.length, self.fps
        for factor in self.factors:
            fps *= factor
            yield fps, windows.between(count, factor, size), factor
            count = factor * (count - 1) + 1


def plan_of(record: Record, folder: ModelFolder, choices: Choices) -> Plan:
    """What is to become of this record."""
    require_kind(record, "latents", made_by="vidgen sample")
    require_space(record, folder, verb="extends")
    (channels, stride), made = folder.latent_sizes, folder.geometry
    rows, columns = made.height // stride, made.width // stride
    require_tensor(record, "latents", FLOATS, channels, None, rows, columns)
    have = record["latents"].shape[1]
    require_tensor(record, "times", ("F64",), have)
    if "text.embeds" not in record.tensors:
        raise InputError(
            f"record `{record.id}` has no text, and the network is told what to show",
            next="latents that `vidgen sample` makes keep their text",
        )
    require_text(record, folder)
    own_seed(record)
    fps = _rate(record, folder)
    wanted = fps if choices.fps is None else choices.fps
    factor = round(wanted / fps)
    if factor < 1 or abs(wanted / fps - factor) > UNEVEN * factor:
        raise UsageError(
            f"--fps {wanted:g}: record `{record.id}` has {fps:g} frames a second, and a rate can"
            " only be multiplied by a whole number",
            next=f"--fps {fps * max(factor, 2):g}",
        )
    length, rest = have, 0
    if choices.num_frames is not None:
        length, rest = divmod(choices.num_frames - 1, factor)
        length += 1
    if rest:
        near = factor * max(length, have) + 1
        raise UsageError(
            f"--num-frames {choices.num_frames}: {factor} times as many frames a second begin and"
            f" end with one that is there at {fps:g}",
            next=f"--num-frames {near}",
        )
    if length < have:
        raise UsageError(
            f"--num-frames {choices.num_frames}: record `{record.id}` has {have}, which become"
            f" {factor * (have - 1) + 1} at this rate",
            next="vidgen decode, and cut the video",
        )
    if length == have and factor == 1:
        raise UsageError(
            f"record `{record.id}` has {have} frames at {fps:g} a second already",
            next=f"--num-frames {have + made.num_frames - choices.overlap}, or --fps {2 * fps:g}",
        )
    return _possible(record, folder, Plan(have, fps, length, tuple(windows.prime_factors(factor))))


def _possible(record: Record, folder: ModelFolder, plan: Plan) -> Plan:
    """The plan, if windows of the model's length can do it."""
    size = folder.geometry.num_frames
    if large := [p for p in plan.factors if p >= size]:
        raise UsageError(
            f"--fps {plan.fps * math.prod(plan.factors):g}: record `{record.id}` has {plan.fps:g}"
            f" frames a second, and for {large[0]} times as many, {large[0] - 1} new ones in a row,"
            f" clips of {size} are too short",
            next=f"--fps {2 * plan.fps:g}",
        )
    shortest = plan.length
    if plan.length == plan.have:
        shortest = plan.factors[0] * (plan.length - 1) + 1
    if shortest < size:
        raise UsageError(
            f"record `{record.id}` is to be {shortest} frames long, and `{folder.name}` makes"
            f" {size} at once",
            next=f"--num-frames {math.prod(plan.factors) * (size - 1) + 1}",
        )
    return plan


def _rate(record: Record, folder: ModelFolder) -> float:
    """Frames a second, by their times; what the record itself says, where that is the same but for
    rounding, and of a single frame; or else the model's own."""
    times, own = record.torch("times"), record.attrs.get("fps")
    given = isinstance(own, int | float) and not isinstance(own, bool) and 0 < own < math.inf
    if len(times) == 1:
        return float(own) if given else folder.geometry.fps  # type: ignore[arg-type]
    spacing = times.diff()
    least, most = float(spacing.min()), float(spacing.max())
    if not 0 < least <= most <= least * (1 + UNEVEN):
        raise InputError(
            f"record `{record.id}`: its latents are {least:.4g} to {most:.4g} s apart",
            why="the network makes frames at equal distances",
            next="vidgen encode-video --fps N makes latents at a constant rate",
        )
    found = (len(times) - 1) / float(times[-1] - times[0])
    return float(own) if given and math.isclose(own, found) else found  # type: ignore[arg-type]


def warn_of_rate(fps: float, folder: ModelFolder, told: set[float], notify: Notify) -> None:
    """Once for each rate that the model doesn't say it was trained on."""
    sample = folder.config("transformer")["sample"]
    rates = sample.get("rates") or [folder.geometry.fps]
    if not any(abs(fps / rate - 1) < UNEVEN for rate in rates) and fps not in told:
        notify.warn(
            f"`{folder.name}` was trained on {' or '.join(f'{rate:g}' for rate in rates)} frames a"
            f" second, and is told {fps:g}"
        )
        told.add(fps)
