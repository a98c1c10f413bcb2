"""Rendered clips as a model would have made them: what its decoder is really given.

The keyframes of a clip are encoded, get noise, and are sampled from there by the model's network
under the clip's caption (SDEdit, Meng et al. 2021, §3); then they go through its interpolation and
its upsampler, as far as `generate` goes. What comes out shows the same scene with the model's own
errors: lumps, rounded corners, blurred spins. Beside it stands the clip as it was rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vidgen.errors import InputError
from vidgen.io.record import Record
from vidgen.stages import cascade
from vidgen.stages.base import Compute, Notify, Silent
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.encode_video import encode_video
from vidgen.stages.rendered import clips_of, records
from vidgen.stages.sample_keyframes import Choices, begun
from vidgen.systems.base import Enlarged, Geometry, ModelFolder
from vidgen.world.scene import Scene

NEEDED = ("transformer", "text_encoder", "vae", "interpolation")  # and an upsampler, if it has one


def missing(folder: ModelFolder) -> list[str]:
    """Components that a model lacks to redraw clips."""
    return [part for part in NEEDED if part not in folder.index]


def shown(folder: ModelFolder) -> Geometry:
    """Of the clips that the model makes, all of its stages behind each other."""
    return clips_of(folder.geometry, scale=_scale(folder))


def _scale(folder: ModelFolder) -> int:
    if "upsampler" not in folder.index:
        return 1
    return folder.sample("upsampler", Enlarged).scale(folder.geometry.height)


def redraw(
    scenes: Sequence[Scene],
    captions: Sequence[str],
    folder: ModelFolder,
    strength: float,
    *,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records of the scenes, `shown(folder)` in size. `strength`: how much of the keyframes
    is noise where sampling begins, as in `sample_keyframes`. InputError for a model that is not
    whole."""
    if lacking := missing(folder):
        raise InputError(f"{folder.path}: has no {', '.join(lacking)}, so it makes no whole clips")
    prompts = [
        Prompt(caption, id=f"world-{scene.seed}", seed=scene.seed)
        for scene, caption in zip(scenes, captions, strict=True)
    ]
    texts = encode_text(prompts, folder)
    clips = encode_video(records(scenes, folder.geometry), folder, compute=compute)
    dense = cascade.sample(
        begun(texts, list(clips), folder), folder, Choices(strength=strength),
        passes=1, compute=compute, notify=notify,
    )  # fmt: skip
    return cascade.enlarge(dense, folder, _scale(folder), compute=compute, notify=notify)
