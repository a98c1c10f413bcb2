"""Text records → latents records of whole clips, by a model of a released folder.

The model's system knows how it is sampled (`vidgen.systems.released.Run`); here is what all of them
share: noise, batches, the log, and what a folder without some of its components can still be told
apart by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vidgen.diffusion.noise import Noise
from vidgen.diffusion.solvers import Step
from vidgen.errors import InputError, UsageError, is_out_of_memory
from vidgen.io import log, weights
from vidgen.io.image import read_image
from vidgen.io.record import Record
from vidgen.nn import attention
from vidgen.stages import previews
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
from vidgen.stages.checkpoints import Checkpoints
from vidgen.stages.fitting import out_of_memory, require_weights, require_work
from vidgen.stages.memory import free_bytes
from vidgen.stages.placing import approximations, networks
from vidgen.stages.sample_keyframes import Choices, own_seed, sample_id
from vidgen.systems.base import ModelFolder
from vidgen.systems.lora import read as read_lora
from vidgen.systems.lora import refuse_others
from vidgen.systems.released import Asked, Run

STAGE = "sample"


@dataclass(frozen=True)
class _Job:
    """One sample to make."""

    record: Record
    seed: int
    id: str


def run_of(folder: ModelFolder, choices: Choices) -> Run:
    """How these samples are made, before any weights are read. UsageError for what can't be."""
    width, height = choices.size or (None, None)
    asked = Asked(
        picture=choices.image is not None,
        num_frames=choices.num_frames,
        height=height,
        width=width,
        num_inference_steps=choices.num_inference_steps,
        guidance_scale=choices.guidance_scale,
        solver=choices.solver,
        shift=choices.shift,
    )
    return folder.released.run(folder, asked)


def sample_clips(
    records: Iterable[Record],
    folder: ModelFolder,
    choices: Choices = Choices(),
    *,
    checkpoints: Checkpoints | None = None,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Text records → for each record and seed one record with `latents` `C T h w` (float32) of a
    clip. The text stays in the record. `checkpoints`: where unfinished samples are kept.

    A sample's noise depends on its seed and its text record's id alone. Raises InputError for a
    record that is no text, or text of another encoder.
    """
    run = run_of(folder, choices)
    for component in run.components:
        folder.weight_files(component)
    for what in approximations(compute):
        notify.warn(f"an approximation, as --weight-dtype {compute.weight_dtype} says: {what}")
    if checkpoints is not None and checkpoints.preview_every is not None:
        previews.require_autoencoder(folder)
    require_room(run, compute)
    space = _space(folder, notify)
    picture = _picture(run, choices, folder, compute, notify)
    loading = Loading(lambda: networks(folder, run, choices, compute), now=compute.preload)
    colors = Loading(lambda: _colors(folder, notify))
    batches = batched(_jobs(records, folder, run, choices, notify), compute.batch_size)
    for i, batch in enumerate(batches):
        if i == 0:  # the others are no larger
            require_work(run, compute, len(batch))
        free = free_bytes(compute.torch_device())
        try:
            yield from _sample(
                batch, loading, folder, run, picture, space, choices, checkpoints, colors, compute,
                notify,
            )  # fmt: skip
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(run, compute, len(batch), free) from None


def require_room(run: Run, compute: Compute) -> None:
    """OutOfMemory, before anything is computed, where not even one sample fits."""
    require_weights(run, compute, compute.batch_size)
    if not compute.preload:  # in a pipe, who makes the text still has its memory
        require_work(run, compute, 1)


def check_loras(folder: ModelFolder, run: Run, choices: Choices) -> None:
    """Before anything is computed: InputError for files that aren't LoRA of these networks."""
    for lora in choices.loras:
        if lora.component not in run.components:
            raise UsageError(
                f"--lora {lora.path}: `{folder.name}` has no network `{lora.component}`",
                next=f"one of: {', '.join(run.components)}",
            )
        network = run.build(lora.component)
        names = folder.released.layer_names(network)
        refuse_others(lora, read_lora(lora, names), network)


def _picture(
    run: Run, choices: Choices, folder: ModelFolder, compute: Compute, notify: Notify
) -> Loading | None:
    """The picture that clips begin with: read now, encoded when it is first asked for."""
    if run.pictured is None or choices.image is None:
        return None
    folder.weight_files("vae")
    image, encode = read_image(choices.image), run.pictured
    height, width = image.shape[:2]
    if abs(width * run.made.height / (height * run.made.width) - 1) > 0.02:
        notify.warn(
            f"{choices.image}: {width}x{height} pixels are stretched to"
            f" {run.made.width}x{run.made.height}"
        )
    return Loading(lambda: encode(image, compute.torch_device(), compute.torch_dtype()))


def _colors(folder: ModelFolder, notify: Notify) -> previews.Projection:
    """What latents look like, for previews."""
    found = previews.fitted(folder)
    notify.warn(
        "previews are approximate: a linear map of latents, which explains"
        f" {found.explained:.0%} of what the colors of {previews.CLIPS} drawn clips vary by"
    )
    return found


def _space(folder: ModelFolder, notify: Notify) -> str:
    """The name of the latents: without the autoencoder's weights, that of its system alone."""
    if folder.has("vae"):
        return folder.latent_space
    notify.warn(
        f"`{folder.path}` has no autoencoder: its latents are called `{folder.system}-vae`, and"
        " whether they are those of the one that decodes them can't be checked"
    )
    return f"{folder.system}-vae"


def _jobs(
    records: Iterable[Record], folder: ModelFolder, run: Run, choices: Choices, notify: Notify
) -> Iterator[_Job]:
    known = folder.text_encoder if folder.has("text_encoder") else None
    if known is None:
        notify.warn(
            f"`{folder.path}` has no text encoder: whether texts are of its own can't be checked"
        )
    for record in records:
        require_kind(record, "text", made_by="vidgen encode-text")
        encoder = str(record.attrs.get("text_encoder"))
        if encoder != known and (known or not encoder.startswith(f"{folder.system}-text@")):
            raise InputError(
                f"record `{record.id}`: text is encoded by `{encoder}`,"
                f" `{folder.name}` reads `{known or folder.system + '-text'}`",
                next=f"vidgen encode-text --model {folder.path} …",
            )
        for prefix in ("text.", "text.negative_"):
            require_tensor(record, prefix + "embeds", FLOATS, None, run.text_dim)
            length = record[prefix + "embeds"].shape[0]
            require_tensor(record, prefix + "mask", ("BOOL", "U8"), length)
            _text(record, prefix, run)
        seeds = choices.seeds_of(own_seed(record))
        for seed in seeds:
            yield _Job(record, seed, sample_id(record.id, seed, len(seeds)))


def _shaping(
    jobs: list[_Job], folder: ModelFolder, run: Run, choices: Choices, compute: Compute
) -> list[Any]:
    """All that a step of these samples depends on, as JSON."""
    return [
        [[job.seed, job.record.id, job.record.digest] for job in jobs],
        [folder.identity(component) for component in run.components],
        [list(run.shape), run.sampler, [lora.identity for lora in choices.loras]],
        [_digest(choices.image), compute.described(), compute.attention, compute.compile],
        approximations(compute),
    ]


def _digest(image: str | None) -> list[str]:
    """What names the picture in the log."""
    return [] if image is None else ["sha256:" + weights.sha256(image)]


def _text(record: Record, prefix: str, run: Run) -> torch.Tensor:
    """`1 n d` as the network takes it."""
    return run.text(
        record.torch(prefix + "embeds").float()[None], record.torch(prefix + "mask").bool()[None]
    )


@torch.no_grad()
def _sample(
    jobs: list[_Job],
    loading: Loading,
    folder: ModelFolder,
    run: Run,
    picture: Loading | None,
    space: str,
    choices: Choices,
    checkpoints: Checkpoints | None,
    colors: Loading,
    compute: Compute,
    notify: Notify,
) -> Iterator[Record]:
    device, placed = compute.torch_device(), loading.get()
    cond, uncond = (
        {"text": torch.cat([_text(job.record, prefix, run) for job in jobs]).to(device)}
        for prefix in ("text.", "text.negative_")
    )
    noise = Noise([(job.seed, job.record.id) for job in jobs], stage=STAGE)
    z = noise.initial(run.shape).to(device)
    if picture is not None:
        given = picture.get()(noise)
        cond, uncond = cond | given, uncond | given
    denoise = run.denoiser(placed.here(), uncond)

    def preview(path: Path, step: Step) -> None:
        of = f"step {step.i + 1} of {run.steps}"
        previews.write(path, run.kept(step.x0), [job.id for job in jobs], of, colors.get())

    with attention.kernel(compute.attention) as used:
        steps = partial(run.solve, denoise, z, run.levels, cond, noise)
        taken = steps()
        if checkpoints is not None:
            shaping = _shaping(jobs, folder, run, choices, compute)
            taken = checkpoints.steps(
                lambda start: steps(start=start), run.levels, shaping, device, notify, preview
            )
        for step in taken:
            z = step.z
            notify.step(step.i + 1, run.steps, "step")
    placed.rest()

    loras = [lora.identity for lora in choices.loras]
    for job, latents in zip(jobs, run.kept(z).float().cpu(), strict=True):
        made = job.record.replace(
            kind="latents",
            id=job.id,
            tensors={"latents": latents.contiguous()},
            attrs={
                "latent_space": space,
                "num_frames": run.made.num_frames,
                "height": run.made.height,
                "width": run.made.width,
                "fps": run.made.fps,
                "seed": job.seed,
                "source": job.record.id,
            },
            entry=log.new_entry(
                STAGE,
                argv=[STAGE, *choices.argv()],
                model=folder.identity(run.components[0]),
                model_2=folder.identity(run.components[1]) if len(run.components) > 1 else None,
                sampler=run.sampler,
                loras=loras,
                seed=job.seed,
                attention="+".join(sorted(used)) or compute.attention,
                approximations=approximations(compute),
                compiled=True if compute.compile else None,
                inputs=[job.record.digest, *_digest(choices.image)],
                **compute.described(),
            ),
        )
        made.check_values()  # here too: in one process nobody writes latents
        yield made
