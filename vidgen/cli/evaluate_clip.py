"""`vidgen evaluate-clip`: what CLIP says of clips and their prompts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.clip_scores import INTERVAL, UNNAMED, Better, SkipBad, mean_scores
from vidgen.cli.console import Console
from vidgen.cli.eval_clips import Clip as Video
from vidgen.cli.eval_clips import Kept, clips, expand
from vidgen.cli.options import Device, Given, argument, option
from vidgen.cli.page import Page
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting
from vidgen.cli.rows import row_id, rows_by_id
from vidgen.errors import Exit, InputError, UsageError
from vidgen.metrics.report import Report, Score

if TYPE_CHECKING:
    import numpy as np

    from vidgen.metrics.clip import Clip

PAGE = Page(
    name="evaluate-clip",
    summary="how well clips fit their prompts, as CLIP sees them",
    description="""\
Embeds every frame of each clip, and its prompt, with a CLIP that you have: a folder that
transformers reads. Frames are prepared as the folder's own settings say. No CLIP comes with
vidgen; papers use ViT-B/32 mostly, and numbers of two models don't compare.

Prompts are those that the clips carry, or rows of --prompts: objects with `id` and `prompt`, as
`vidgen world --rows` writes them. CLIP reads 77 tokens: of longer prompts the rest is not seen,
which is said, and counted in the report.

A score is the mean over clips of the means over frames, with an interval of 95 % from five clips
on (bootstrap of clips).""",
    reads="clips from MADE: videos, folders, quoted globs, or - for frames records",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen evaluate-clip clips/ --model clip-vit-base-patch32", "a folder of videos"),
        ("vidgen evaluate-clip clips/ --model clip-vit-base-patch32 --prompts rows.jsonl"
         " --min clipsim=0.25", "against prompts of a file; exit code 4 below"),
        ("vidgen evaluate-clip clips/ --model clip-vit-base-patch32 --metrics frame-consistency",
         "without prompts"),
    ],
    notes={
        "METRICS": """\
All are cosines, -1 to 1, higher is better. clipsim: of each frame and the prompt. CLIP-T is the
same times 100; CLIPScore is 2.5 times it, where it is not below 0. frame-consistency: of
neighboring frames (CLIP-F). first-frame-consistency: of each later frame and the first. A still
clip has 1 in both. failed: the clips that --skip-bad left out; no other score has them.""",
    },
    see_also=["vidgen-evaluate-world(1)", "vidgen-evaluate-fvd(1)"],
)  # fmt: skip

Made = Annotated[
    list[str] | None, argument("MADE", "clips: files, folders, quoted globs; - is standard input")
]
Model = Annotated[
    str | None,
    option("--model", metavar="MODEL", default="none", settable=False,
           help="the folder of a CLIP, as transformers reads it"),
]  # fmt: skip
PromptRows = Annotated[
    str | None,
    option("--prompts", metavar="FILE", default="the clips' own", settable=False,
           help="JSONL rows with id and prompt, in any order"),
]  # fmt: skip
Metrics = Annotated[
    str | None,
    option("--metrics", metavar="LIST", default="all", settable=False,
           help="of clipsim, frame-consistency, first-frame-consistency"),
]  # fmt: skip

SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}
_MORE: tuple[Better, str] = ("higher", "")
KINDS = {"clipsim": _MORE, "frame-consistency": _MORE, "first-frame-consistency": _MORE}
SHOWN = 12  # clips on a page


def evaluate_clip(
    console: Console,
    given: Given,
    reporting: Reporting,
    made: Made = None,
    model: Model = None,
    prompts: PromptRows = None,
    metrics: Metrics = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> Exit:
    names = parse_metrics(metrics)
    if "clipsim" not in names:
        given.refuse("prompts", why="clipsim is not among --metrics")
    if model is None:
        raise UsageError(
            "--model is missing",
            why="no CLIP comes with vidgen",
            next="--model FOLDER, such as that of openai/clip-vit-base-patch32",
        )
    if not Path(model).is_dir():
        raise UsageError(f"--model {model}: no such folder")
    others = dict.fromkeys(KINDS, UNNAMED)
    reporting.check([*names, "failed"], others=others, tool=PAGE.name)
    kept = Kept(console)
    sources = expand(made or [], kept)
    rows = None
    if prompts is not None:
        rows = {id: str(row["prompt"]) for id, (_, row) in rows_by_id(prompts).items()}

    from vidgen.metrics.clip import load_clip
    from vidgen.stages.base import Compute

    compute = Compute(device=device)
    compute.check()
    clip = load_clip(Path(model), compute.torch_device())
    if "clipsim" in names and not clip.reads_text:
        raise InputError(
            f"{model}: reads no text, which clipsim needs",
            why="the folder has no text tower, or no tokenizer beside it",
            next="--metrics frame-consistency,first-frame-consistency",
        )
    settings = {"model": clip.settings, "scale": "cosine, -1 to 1", **INTERVAL}
    reporting.check([*names, "failed"], tool=PAGE.name, settings=settings)
    found = Found(clip, names, rows, SHOWN if reporting.html is not None else 0)
    bad: list[str] = []
    for video in clips(sources, None, kept, skip_bad=skip_bad, bad=bad):
        try:
            found.add(video)
        except InputError as error:
            if not skip_bad:
                raise
            bad.append(error.what)
        console.step(done := len(found.items), max(done, len(sources)), "clip")
    report = found.report(", ".join(made or ["-"]), settings, bad, kept)
    return reporting.finish(report, console, found.shown)


def parse_metrics(text: str | None) -> tuple[str, ...]:
    """`clipsim,frame-consistency` → the names, each once. UsageError for what is none."""
    if text is None:
        return tuple(KINDS)
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in KINDS:
            raise UsageError(f"--metrics {name}: there is no such metric",
                             why=f"there are: {', '.join(KINDS)}")  # fmt: skip
    return names


class Found:
    """What has been measured so far. `rows`: id → prompt of a file; `keep`: clips to show."""

    def __init__(
        self, clip: Clip, names: tuple[str, ...], rows: dict[str, str] | None, keep: int
    ) -> None:
        self.clip, self.names, self.rows, self.keep = clip, names, rows, keep
        self.items: list[dict[str, Any]] = []
        self.digests: list[str] = []
        self.shown: list[tuple[str, np.ndarray, np.ndarray | None]] = []
        self.used: set[str] = set()  # ids of rows

    def add(self, video: Video) -> None:
        """Measure a clip. InputError if it has no prompt, or one frame where two are needed."""
        import torch

        from vidgen.metrics import clipsim

        prompt = self._prompt(video) if "clipsim" in self.names else None
        if self.names != ("clipsim",) and len(video.frames) < 2:
            raise InputError(f"clip `{video.id}` has one frame, which is like no other",
                             next="--metrics clipsim")  # fmt: skip
        embeds = self.clip.frames(torch.from_numpy(video.frames))
        item: dict[str, Any] = {"id": video.id, "frames": len(video.frames)}
        if prompt is not None:
            item |= {"prompt": prompt, "truncated": bool(self.clip.truncated([prompt]))}
            item["clipsim"] = clipsim.clipsim(embeds, self.clip.texts([prompt])[0])
        for name in self.names:
            if name != "clipsim":
                item[name] = getattr(clipsim, name.replace("-", "_"))(embeds)
        self.items.append(item)
        digest = hashlib.sha256(str(video.frames.shape).encode() + video.frames.tobytes())
        self.digests.append(digest.hexdigest())
        if len(self.shown) < self.keep:
            self.shown.append((video.id, video.frames, None))

    def _prompt(self, video: Video) -> str:
        if self.rows is not None:
            id = row_id(video.id, self.rows)
            if id is None:
                raise InputError(f"clip `{video.id}`: no row of --prompts has its id")
            self.used.add(id)
            return self.rows[id]
        if video.prompt is None:
            raise InputError(
                f"clip `{video.id}` does not know its prompt",
                next="--prompts rows.jsonl says it, --metrics frame-consistency needs none",
            )
        return video.prompt

    def report(self, made: str, settings: dict[str, Any], bad: list[str], kept: Kept) -> Report:
        if not self.items:
            raise InputError("no clip could be used", why="; ".join(bad[:3]) or None)
        cut = sum(bool(item.get("truncated")) for item in self.items)
        if cut:
            kept.warn(
                f"{cut} of {len(self.items)} prompts are longer than the {self.clip.context} tokens"
                " that this CLIP reads: their ends count for nothing"
            )
        if self.rows and (unused := sorted(self.rows.keys() - self.used)):
            kept.warn(f"{len(unused)} prompts have no clip: {', '.join(unused[:3])}")
        whole = hashlib.sha256("".join(sorted(self.digests)).encode()).hexdigest()
        inputs = [{"role": "made", "name": made, "clips": len(self.items), "sha256": whole,
                   "left_out": len(bad)}]  # fmt: skip
        details: dict[str, Any] = {"truncated": cut} if "clipsim" in self.names else {}
        scores = mean_scores(self.items, KINDS)
        scores["failed"] = Score(float(len(bad)), better="lower", n=len(self.items) + len(bad))
        return Report(
            PAGE.name, settings, inputs, scores, kept.warnings, self.items,
            details | ({"left_out": {"made": bad}} if bad else {}),
        )  # fmt: skip
