"""A clip and its truth as one record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vidgen.io.record import Record
from vidgen.world import captions
from vidgen.world.parts import Scene
from vidgen.world.render import frame_times, render
from vidgen.world.scene import labels
from vidgen.world.sound import SAMPLE_RATE, sound
from vidgen.world.truth import flow, truth


def clip_record(
    scene: Scene,
    *,
    num_frames: int = 17,
    fps: float = 8,
    times: Sequence[float] | None = None,
    height: int = 40,
    width: int = 64,
    device: str = "cpu",
    with_truth: bool = True,
    with_flow: bool = False,
    with_sound: bool = False,
    prompt: str | None = None,
    id: str | None = None,
) -> Record:
    """A record of kind `frames`: what the scene looks like, sounds like, and is.

    times       seconds of the frames; without it `num_frames` at `fps`
    with_truth  depth, tracks, poses and owners (`truth.*`, as `truth.Truth` describes them)
    with_flow   `truth.flow` and `truth.flow_visibility`
    with_sound  `audio`, 16 kHz, as long as the frames last
    prompt      instead of the canonical caption
    id          instead of `world-<level>-<seed>`

    Always there: `frames`, `times`, `camera.c2w`, `camera.intrinsics`; attrs prompt, seed, level,
    fps, num_frames, height, width, factors, and events as [start, end, caption].
    """
    times = frame_times(num_frames, fps) if times is None else list(times)
    found = truth(scene, times, height, width)
    frames = render([scene], times=times, height=height, width=width, device=device).frames[0]
    tensors: dict[str, Any] = {
        "frames": frames,
        "times": found.times,
        "camera.c2w": found.c2w,
        "camera.intrinsics": found.intrinsics,
    }
    attrs: dict[str, Any] = {
        "prompt": captions.caption(scene) if prompt is None else prompt,
        "seed": scene.seed,
        "level": scene.level,
        "fps": fps,
        "num_frames": len(times),
        "height": height,
        "width": width,
        "factors": labels(scene),
        "events": [list(e) for e in captions.event_captions(scene)],
    }
    if with_truth:
        for name in (
            "depth", "owner", "centers", "rotations", "sizes", "image_centers", "tracks",
            "visibility", "track_owner",
        ):  # fmt: skip
            tensors[f"truth.{name}"] = getattr(found, name)
        attrs["truth"] = {
            "events": found.events,
            "relations": [list(r) for r in found.relations],
        }
    if with_flow:
        moved, seen = flow(scene, times, height, width)
        tensors |= {"truth.flow": moved, "truth.flow_visibility": seen}
    if with_sound:
        tensors["audio"] = sound(scene, len(times) / fps)
        attrs["sample_rate"] = SAMPLE_RATE
    return Record.make("frames", id or f"world-{scene.level}-{scene.seed}", tensors, attrs)
