"""Text records → latents records: the keyframes of a clip, on a sparse time axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from vidgen.diffusion.level import Levels
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.diffusion.solvers import Solver
from vidgen.errors import InputError, UsageError
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn import attention
from vidgen.nn.fit import FIT
from vidgen.nn.text import TextEmbedding, pad_text
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    Silent,
    batched,
    require_kind,
    require_tensor,
)
from vidgen.stages.decode import require_space
from vidgen.stages.text_network import loading, reads_size, system_of
from vidgen.systems import load
from vidgen.systems.base import ModelFolder
from vidgen.systems.lora import Lora

STAGE = "sample-keyframes"
INIT = "init.latents"  # C T h w: what samples begin as, with noise


@dataclass(frozen=True)
class Choices:
    """What the user may set; None means the model's own default."""

    seeds: tuple[int, ...] | None = None  # None: from each record's own `seed`, or 0, on
    num_samples: int = 1  # where `seeds` is None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    solver: str | None = None
    shift: float | None = None
    num_frames: int | None = None  # these two of models that make clips of any size
    size: tuple[int, int] | None = None  # width, height
    image: str | None = None  # a file: the picture that clips begin with
    loras: tuple[Lora, ...] = ()  # fused into released models
    # Samples begin as the records' `init.latents` with this share of noise (SDEdit), not as noise.
    strength: float | None = None
    # Width and height that a clip is to look as if it once had, of models that learned of that.
    original_size: tuple[int, int] | None = None

    def seeds_of(self, own: int | None) -> tuple[int, ...]:
        """The seeds of a prompt whose own seed is this."""
        if self.seeds is not None:
            return self.seeds
        first = own or 0
        return tuple(range(first, first + self.num_samples))

    def argv(self) -> list[str]:
        """These choices as canonical flags, for the log."""
        flags = {
            "--guidance-scale": self.guidance_scale,
            "--image": None if self.image is None else "FILE",
            "--init": None if self.strength is None else "FILE",
            "--num-frames": self.num_frames,
            "--original-size": self.original_size and "{}x{}".format(*self.original_size),
            "--shift": self.shift,
            "--size": self.size and "{}x{}".format(*self.size),
            "--solver": self.solver,
            "--steps": self.num_inference_steps,
            "--strength": self.strength,
        }
        words = [x for k, v in flags.items() if v is not None for x in (k, str(v))]
        return words + [x for lora in self.loras for x in ("--lora", f"FILE:{lora.weight:g}")]


@dataclass(frozen=True)
class _Job:
    """One sample to make."""

    record: Record
    seed: int
    id: str
    inputs: tuple[str, ...]  # digests, for the log


def sample_keyframes(
    records: Iterable[Record],
    folder: ModelFolder,
    choices: Choices = Choices(),
    *,
    network: Loading | None = None,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Text records → for each record and seed one record with `latents` `C T h w` (float32) and
    `times` `T` (seconds). The text stays in the record. `network` is the folder's, where another
    stage has it too.

    A sample's noise depends on its seed and its text record's id alone. Raises InputError for a
    record that is no text, or text of another encoder; with `choices.strength`, for one without
    `init.latents` (see `begin_as`), and UsageError for a strength below that of the last level.
    """
    method = method_of(folder, choices)
    warn_of_size(folder, choices, notify)
    network = network or loading(folder, compute)
    jobs = _jobs(records, folder, choices)
    for batch in batched(jobs, compute.batch_size):
        yield from _sample(batch, network, folder, method, choices, compute, notify)


@dataclass(frozen=True)
class Method:
    """How noise becomes a sample: the model's own way, but for what the user chose."""

    solve: Solver
    levels: Levels
    guidance_scale: float
    size: tuple[float, float] | None = None  # what the network is told of it; None: nothing

    @property
    def steps(self) -> int:
        return len(self.levels) - 1


def method_of(folder: ModelFolder, choices: Choices) -> Method:
    """UsageError for choices that the model can't go by."""
    own, scale = folder.sampler, choices.guidance_scale
    steps = choices.num_inference_steps or own.num_inference_steps
    levels = load.levels(folder, steps, choices.shift)
    return Method(
        load.solver(folder, choices.solver),
        levels if choices.strength is None else levels_from(levels, choices.strength),
        own.guidance_scale if scale is None else scale,
        None if choices.original_size is None else told_size(folder, *choices.original_size),
    )


def told_size(folder: ModelFolder, width: int, height: int) -> tuple[float, float]:
    """Rows and columns that a clip once had, as a network is told them: as shares of those that it
    makes. UsageError for a network that isn't told any, and for more than it makes."""
    made = folder.geometry
    if not reads_size(folder):
        raise UsageError(
            f"--original-size: the network of `{folder.name}` is told no size",
            next="leave --original-size out",
        )
    if width > made.width or height > made.height:
        raise UsageError(
            f"--original-size {width}x{height}: `{folder.name}` makes {made.width}x{made.height},"
            " and clips that it learned from were never larger",
            next=f"--original-size {made.width}x{made.height}, or less",
        )
    return height / made.height, width / made.width


def warn_of_size(folder: ModelFolder, choices: Choices, notify: Notify) -> None:
    """Of an original size that the model doesn't say it learned from; to the pixel, since half of
    an odd number is none."""
    if choices.original_size is None:
        return
    made, (width, height) = folder.geometry, choices.original_size
    known = folder.config("transformer")["sample"].get("sizes") or [1.0]
    if not any(abs(s * made.width - width) < 1 > abs(s * made.height - height) for s in known):
        sizes = " or ".join(f"{round(s * made.width)}x{round(s * made.height)}" for s in known)
        notify.warn(
            f"`{folder.name}` says that it learned from clips of {sizes}, and is told"
            f" {width}x{height}"
        )


def levels_from(levels: Levels, strength: float) -> Levels:
    """The levels from the first on of whose z noise is `strength` at most, as a share: sigma of
    alpha + sigma, which is t of rectified flow. UsageError if only the last, x0 itself, is such."""
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength:g}: must be above 0, and 1 at most")
    if (first := _first(levels, strength)) is None:
        raise UsageError(
            f"--strength {strength:g}: {_begins_above(levels)}",
            next="more --steps, or a larger --strength",
        )
    return levels[first:]


def _first(levels: Levels, strength: float) -> int | None:
    """The first step whose z has so little noise."""
    return next((i for i, s in enumerate(_shares(levels)) if s <= strength + 1e-6), None)


def _begins_above(levels: Levels) -> str:
    shares = _shares(levels)
    return f"of {len(shares)} steps the last begins at {shares[-1]:.3g}"


def _shares(levels: Levels) -> list[float]:
    """Of noise in the z that each step begins with."""
    return [float(level.sigma / (level.alpha + level.sigma)) for level in levels[:-1]]


@dataclass(repr=False)
class _Begun(Record):
    """A text record with `init.latents`, which is in no file: the log names those it is made of."""

    inputs: tuple[str, ...] = ()


def unable(folder: ModelFolder, strength: float) -> str:
    """Why a model has no step that begins with so little noise, in words; empty: it has one."""
    levels = method_of(folder, Choices()).levels
    return _begins_above(levels) if _first(levels, strength) is None else ""


def begin_as(text: Record, clip: Record, folder: ModelFolder) -> Record:
    """The text record with the latents of a clip as `init.latents`, for samples that begin there
    (SDEdit, Meng et al. 2021, §3). InputError for what are no latents of the folder's space."""
    require_kind(clip, "latents", made_by="vidgen encode-video")
    require_space(clip, folder, verb="samples in")
    both = text.replace(tensors={INIT: clip.torch("latents").float()})
    return _Begun(**vars(both), inputs=(text.digest, clip.digest))


def require_beginnings(clips: Iterable[Record], folder: ModelFolder) -> None:
    """InputError for a clip that no sample of the folder's can begin as."""
    system = system_of(folder)
    # Loaded for its sizes alone: the weights are mapped, and read when used.
    shape = system.sample_shape(folder, system.load_transformer(folder).config)
    for clip in clips:
        require_kind(clip, "latents", made_by="vidgen encode-video")
        require_space(clip, folder, verb="samples in")
        _require_shape(clip, "latents", shape, folder)


def begun(
    texts: Iterable[Record], clips: Sequence[Record], folder: ModelFolder
) -> Iterator[Record]:
    """Each text with its clip, in order, or all with the one clip there is. InputError, when it
    comes to that, for more texts than clips, or fewer."""
    left = iter(clips) if len(clips) != 1 else repeat(clips[0])
    for text in texts:
        if (clip := next(left, None)) is None:
            raise InputError(f"{text.id}: there are {len(clips)} clips to begin as, and more texts")
        yield begin_as(text, clip, folder)
    if len(clips) != 1 and (clip := next(left, None)) is not None:
        raise InputError(f"{clip.id}: there are {len(clips)} clips to begin as, and fewer texts")


def _init(record: Record, shape: tuple[int, ...], folder: ModelFolder) -> Tensor:
    """What a sample of the record begins as, float32 `c t h w`."""
    if INIT not in record.tensors:
        raise InputError(f"record `{record.id}` has no `{INIT}` to begin as")
    _require_shape(record, INIT, shape, folder)
    return record.torch(INIT).float()


def _require_shape(record: Record, name: str, shape: tuple[int, ...], folder: ModelFolder) -> None:
    if record[name].shape != shape:
        found, own = (" × ".join(map(str, sizes)) for sizes in (record[name].shape, shape))
        raise InputError(
            f"record `{record.id}`: the latents to begin as are {found}, and `{folder.name}` makes"
            f" {own}",
            why="channels × frames × rows × columns",
        )


def _jobs(records: Iterable[Record], folder: ModelFolder, choices: Choices) -> Iterator[_Job]:
    for record in records:
        require_kind(record, "text", made_by="vidgen encode-text")
        require_text(record, folder)
        seeds = choices.seeds_of(own_seed(record))
        inputs = record.inputs if isinstance(record, _Begun) else (record.digest,)
        for seed in seeds:
            yield _Job(record, seed, sample_id(record.id, seed, len(seeds)), inputs)


def require_text(record: Record, folder: ModelFolder, component: str = "transformer") -> None:
    """InputError unless the record holds text of the folder's encoder, as wide as the component's
    network takes it."""
    width = folder.size(component, "text_dim")
    pooled = None  # any, where the network doesn't read it
    if "pooled_dim" in folder.config(component):
        pooled = folder.size(component, "pooled_dim")
    encoder = record.attrs.get("text_encoder")
    if encoder != folder.text_encoder:
        raise InputError(
            f"record `{record.id}`: text is encoded by `{encoder}`,"
            f" `{folder.name}` reads `{folder.text_encoder}`",
            next=f"vidgen encode-text --model {folder.name} …",
        )
    for prefix in ("text.", "text.negative_"):
        require_tensor(record, prefix + "embeds", FLOATS, None, width)
        length = record[prefix + "embeds"].shape[0]
        require_tensor(record, prefix + "mask", ("BOOL", "U8"), length)
        require_tensor(record, prefix + "pooled", FLOATS, pooled)


def own_seed(record: Record) -> int | None:
    """The seed that a text record brings; InputError for what is no number."""
    own = record.attrs.get("seed")
    if own is not None and (not isinstance(own, int) or isinstance(own, bool)):
        raise InputError(f"record `{record.id}`: its seed is {own!r}, not a number")
    return own


@torch.no_grad()
def _sample(
    jobs: list[_Job],
    loading: Loading,
    folder: ModelFolder,
    method: Method,
    choices: Choices,
    compute: Compute,
    notify: Notify,
) -> Iterator[Record]:
    device, dtype = compute.torch_device(), compute.torch_dtype()
    network = loading.get().to(device=device, dtype=dtype)
    geometry, shape = folder.geometry, system_of(folder).sample_shape(folder, network.config)

    times = torch.tensor(geometry.times, dtype=torch.float64)
    cond, uncond = text_cond([j.record for j in jobs], device)
    for part in (cond, uncond):
        part["times"] = times.float().expand(len(jobs), -1).to(device)
        if method.size is not None:
            part["size"] = torch.tensor(method.size, device=device).expand(len(jobs), -1)

    noise = Noise([(j.seed, j.record.id) for j in jobs], stage=STAGE)
    levels = method.levels
    called = system_of(folder).called(network)
    denoise = denoiser(called, load.prediction(folder))
    denoise = load.guided(
        denoise, uncond, folder.sampler, levels, method.guidance_scale, choices.solver
    )
    z = noise.initial(shape).to(device) * levels[0].sigma
    if choices.strength is not None:
        x0 = torch.stack([_init(job.record, shape, folder) for job in jobs])
        z = z + levels[0].alpha * x0.to(device)
    with attention.kernel(compute.attention) as used:
        for step in method.solve(denoise, z, levels, cond, noise):
            z = step.z
            notify.step(step.i + 1, len(levels) - 1, "step")

    for job, latents in zip(jobs, z.float().cpu(), strict=True):
        made = job.record.replace(
            drop=[INIT],
            kind="latents",
            id=job.id,
            tensors={"latents": latents, "times": times},
            attrs={
                "latent_space": folder.latent_space,
                "num_frames": geometry.num_frames,
                "height": geometry.height,
                "width": geometry.width,
                "fps": geometry.fps,
                "seed": job.seed,
                "source": job.record.id,
            },
            entry=log.new_entry(
                STAGE,
                argv=[STAGE, *choices.argv()],
                model=folder.identity("transformer"),
                seed=job.seed,
                attention="+".join(sorted(used)) or compute.attention,
                **compute.accelerations(),
                padding=network.padding(*shape[2:]) if isinstance(network, FIT) else None,
                inputs=job.inputs,
                **compute.described(),
            ),
        )
        made.check_values()  # here too: in one process nobody writes latents
        yield made


def sample_ids(texts: Iterable[tuple[str, int | None]], choices: Choices) -> list[str]:
    """The ids that the samples of these texts, (id, own seed) each, will have."""
    return [
        sample_id(name, seed, len(seeds))
        for name, own in texts
        for seeds in [choices.seeds_of(own)]
        for seed in seeds
    ]


def sample_id(name: str, seed: int, num_seeds: int) -> str:
    """The id of one sample of a text record: the record's own unless it has several."""
    return name if num_seeds == 1 else f"{name}-s{seed}"


def text_cond(records: list[Record], device: torch.device) -> tuple[dict, dict]:
    """The records' prompts and negative prompts: two batches of network arguments, padded to one
    length, so that guidance can run both in one call."""
    texts = [
        TextEmbedding(
            r.torch(prefix + "embeds"), r.torch(prefix + "mask").bool(), r.torch(prefix + "pooled")
        )
        for prefix in ("text.", "text.negative_")
        for r in records
    ]
    both = {name: x.to(device) for name, x in pad_text(texts).items()}
    n = len(records)
    return {k: x[:n] for k, x in both.items()}, {k: x[n:] for k, x in both.items()}
