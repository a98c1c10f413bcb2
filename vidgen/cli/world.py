"""`vidgen world`: clips of the procedural world, with all their truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli import video_output
from vidgen.cli.console import Console
from vidgen.cli.options import (
    Crf,
    Device,
    DryRun,
    RecordOutput,
    Seeds,
    Size,
    option,
    parse_seeds,
    parse_size,
)
from vidgen.cli.page import Page
from vidgen.cli.runner import print_text, write_records
from vidgen.errors import UsageError
from vidgen.io.record import human_bytes

if TYPE_CHECKING:
    from vidgen.io.record import Record
    from vidgen.world.scene import Scene

PAGE = Page(
    name="world",
    summary="clips of the procedural world, with all their truth",
    description="""\
Renders clips of a small 3-D world: balls, cubes and cylinders in eight colors, on four grounds,
that move, bounce or spin before a camera that may pan or zoom; in the full world more of each, up
to three objects, several events, and sound. A clip depends on its seed alone, not on the others.

Each record holds the frames and everything that is true of them: the caption, the factors, cameras,
depth, point tracks, events. Where -o names videos, only frames and sound are in them, and the
caption in the history.

The splits are ranges of seeds, fixed for good; --seed counts from the start of the split. A few
combinations of shape, color and motion occur in the test split only, so that composition can be
tested; --set makes them anywhere.""",
    writes="frames records, or videos, to -o",
    examples=[
        ("vidgen world --num 4 --seed 0 -o clips.safetensors", "four clips"),
        ("vidgen world --num 2 -o 'out/{id}.mp4'", "as videos"),
        ("vidgen world --set shape=cube --set motion=spins --size 128x80 -o cube.mp4",
         "a spinning cube"),
        ("vidgen world --level full --seed 3 | vidgen inspect", "what a record holds"),
        ("vidgen world --split test --num 8 --rows > prompts.jsonl",
         "captions of the test split as rows for encode-text and generate"),
        ("vidgen world --captions", "the words that captions are made of"),
    ],
    notes={
        "REPRODUCIBILITY": """\
The same seed, level, factors, size and rate give the same bytes on the same machine and torch, in
any batch.""",
    },
    see_also=["vidgen-contact-sheet(1)", "vidgen-train(1)"],
)  # fmt: skip

Num = Annotated[
    int | None,
    option("--num", metavar="N", min=1, default="1", settable=False,
           help="how many clips, of seeds SEED, SEED+1, …"),
]  # fmt: skip
FirstSeed = Annotated[
    Seeds | None,
    option("--seed", metavar="SEED", parse=parse_seeds, default="0", settable=False,
           help="seed of the first clip, or of all of them, such as 0-99"),
]  # fmt: skip
Split = Annotated[
    Literal["train", "val", "test"],
    option("--split", metavar="NAME", settable=False,
           help="train, val or test: where seeds count from"),
]  # fmt: skip
Level = Annotated[
    Literal["basic", "full"], option("--level", help="the basic world, or the full one")
]
Set = Annotated[
    list[str] | None,
    option("--set", metavar="FACTOR=VALUE", settable=False, default="all drawn",
           help="fix a factor, such as shape=cube, or objects=2, or events=1 (the things"
           " that the first object does); may be repeated"),
]  # fmt: skip
ClipSize = Annotated[
    Size,
    option("--size", metavar="WxH", parse=parse_size, settable=False, default="64x40",
           help="width and height in pixels"),
]  # fmt: skip
Frames = Annotated[int, option("--frames", metavar="N", min=1, max=10_000, help="frames in a clip")]
ClipFps = Annotated[
    float,
    option("--fps", metavar="N", min=0.01, max=1000, settable=False, help="frames a second"),
]
Flow = Annotated[
    bool, option("--flow", settable=False, help="optical flow between neighboring frames, too")
]
Captions = Annotated[
    bool, option("--captions", settable=False, help="print the grammar of captions and stop")
]

Rows = Annotated[
    bool,
    option("--rows", settable=False,
           help="print the captions and factors as JSONL rows, and render nothing"),
]  # fmt: skip

COUNTS = {"objects": "num_objects", "events": "num_events"}  # what --set counts
USUAL_SIZE = Size(64, 40)

# A clip lasts as long as the world's reference clip, or longer: frames are what is seen of it, so
# fewer of them show the beginning of the same motion rather than the whole of it, faster.
DURATION_S = 2.0


@dataclass(frozen=True)
class Clips:
    """What each clip is to be like; everything but its seed."""

    split: str = "train"
    level: str = "basic"
    factors: dict[str, str] = field(default_factory=dict)
    size: Size = USUAL_SIZE
    num_frames: int = 17
    fps: float = 8.0
    flow: bool = False

    def scene(self, seed: int) -> Scene:
        """The scene of a seed of the split."""
        from vidgen.world.scene import sample_scene

        factors = {k: v for k, v in self.factors.items() if k not in COUNTS}
        counts: dict[str, Any] = {COUNTS[k]: int(v) for k, v in self.factors.items() if k in COUNTS}
        return sample_scene(
            seeds_of(self.split)[seed],
            level=self.level,
            factors=factors,
            **counts,
            duration_s=max(DURATION_S, (self.num_frames - 1) / self.fps),
        )

    def id(self, seed: int) -> str:
        """`world-00000007`; the number is the scene's own seed, whatever the split."""
        return f"world-{seeds_of(self.split)[seed]:08d}"

    def argv(self, seed: int) -> list[str]:
        """The command line that makes this clip alone, without what is as it always is."""
        usual = Clips()._flags()
        given = {k: v for k, v in self._flags().items() if v != usual[k]}
        words = [w for k, v in sorted((given | {"--seed": str(seed)}).items()) for w in (k, v)]
        sets = [w for k, v in sorted(self.factors.items()) for w in ("--set", f"{k}={v}")]
        return ["world", *(["--flow"] if self.flow else []), *words, *sets]

    def _flags(self) -> dict[str, str]:
        return {
            "--fps": f"{self.fps:g}",
            "--frames": str(self.num_frames),
            "--level": self.level,
            "--size": f"{self.size.width}x{self.size.height}",
            "--split": self.split,
        }


def world(
    out: RecordOutput,
    console: Console,
    num: Num = None,
    seed: FirstSeed = None,
    split: Split = "train",
    level: Level = "basic",
    set: Set = None,
    size: ClipSize = USUAL_SIZE,
    frames: Frames = 17,
    fps: ClipFps = 8.0,
    flow: Flow = False,
    crf: Crf = 18,
    captions: Captions = False,
    rows: Rows = False,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    if captions:
        from vidgen.world.captions import grammar

        print_text(grammar())
        return
    video = not (dry_run or rows) and video_output.check(out)
    clips = Clips(split, level, parse_factors(set or ()), size, frames, fps, flow)
    seeds = choose_seeds(seed, num, split)
    clips.scene(seeds[0])  # complains of factors before torch is there
    if rows and not dry_run:
        print_text("\n".join(prompt_row(clips, s) for s in seeds))
        return
    if dry_run:
        print_text(plan(clips, len(seeds)))
        return
    video_output.check_names(out, [clips.id(s) for s in seeds], video=video)

    from vidgen.stages.base import Compute

    compute = Compute(device=device)
    compute.check()
    records = render(clips, seeds, str(compute.torch_device()), console)
    if video:
        video_output.write_videos(records, out, console, fps=None, crf=crf)
    else:
        write_records(records, out, console)


def render(clips: Clips, seeds: Sequence[int], device: str, console: Console) -> Iterator[Record]:
    """The clips of these seeds, one after the other."""
    from vidgen.io.log import new_entry
    from vidgen.world.clips import clip_record

    for done, seed in enumerate(seeds, start=1):
        record = clip_record(
            clips.scene(seed),
            num_frames=clips.num_frames,
            fps=clips.fps,
            height=clips.size.height,
            width=clips.size.width,
            device=device,
            with_flow=clips.flow,
            with_sound=clips.level == "full",
            id=clips.id(seed),
        )
        kind = device.partition(":")[0]
        yield record.replace(entry=new_entry("world", argv=clips.argv(seed), device=kind))
        console.step(done, len(seeds), "clip")


def prompt_row(clips: Clips, seed: int) -> str:
    """A row for `encode-text` and `evaluate-world`: id, caption, and what the scene's factors are
    (without "none" for objects that are not there)."""
    from vidgen.world.captions import caption
    from vidgen.world.scene import NONE, labels

    scene = clips.scene(seed)
    factors = {name: value for name, value in labels(scene).items() if value != NONE}
    row = {"id": clips.id(seed), "prompt": caption(scene), "factors": factors}
    return json.dumps(row)


# --- options --------------------------------------------------------------------------------------


def seeds_of(split: str) -> range:
    """The seeds of a split: where `--seed 0` is, and where they end."""
    from vidgen.world.scene import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS

    return {"train": TRAIN_SEEDS, "val": VALIDATION_SEEDS, "test": TEST_SEEDS}[split]


def choose_seeds(given: Seeds | None, num: int | None, split: str) -> Sequence[int]:
    """The seeds in the split: the one given and those after it, or all that are given."""
    seeds: Sequence[int] = given or (0,)
    if len(seeds) > 1 and num is not None:
        raise UsageError(
            f"--num {num} and --seed with {len(seeds)} seeds: one of them says how many",
            next=f"--seed {seeds[0]} --num {num}",
        )
    if len(seeds) == 1:
        seeds = range(seeds[0], seeds[0] + (num or 1))
    size = len(seeds_of(split))
    last = seeds[-1] if isinstance(seeds, range) else max(seeds)
    if last >= size:
        raise UsageError(
            f"seed {last} is past the end of the {split} split, which has {size}",
            why="--seed counts from the start of the split",
            next="vidgen world --split test --seed 0",
        )
    return seeds


def parse_factors(words: Iterable[str]) -> dict[str, str]:
    """`shape=cube` … → {"shape": "cube"}"""
    factors: dict[str, str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not (name and equals and value):
            raise UsageError(f"--set {word}: is not FACTOR=VALUE", next="--set shape=cube")
        if name in COUNTS and value not in ("1", "2", "3"):
            raise UsageError(f"--set {word}: {name} are 1, 2 or 3")
        if factors.setdefault(name, value) != value:
            raise UsageError(f"--set {word}: {name} is {factors[name]} already")
    return factors


def plan(clips: Clips, num: int) -> str:
    """How many clips there would be, of what, and how large."""
    width, height = clips.size
    pixels = clips.num_frames * width * height
    # Frames have 3 bytes a pixel, depth 4 and owner 1; flow 8 and its visibility 1.
    size = num * pixels * (8 + (9 if clips.flow else 0))
    return (
        f"clips    {num}, {clips.level} world, {clips.split} split\n"
        f"frames   {clips.num_frames} of {width}x{height} at {clips.fps:g} fps\n"
        f"records  about {human_bytes(size)}"
    )
