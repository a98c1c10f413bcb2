"""`vidgen models`: the models that are here, and what they can do."""

from __future__ import annotations

import json as jsonlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli.console import Console, printable
from vidgen.cli.evaluate_world import Judge
from vidgen.cli.models_card import Also, Curves, Failures, Report, Runs, card
from vidgen.cli.models_find import components, describe, find, pick
from vidgen.cli.models_promote import SCHEMAS as PROMOTED
from vidgen.cli.models_promote import As, ModelsDir, Num, promote
from vidgen.cli.options import Device, DryRun, FileOutput, Json, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import SHA256, SWITCH, TEXT, WHOLE, array, obj, or_null, report
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    from vidgen.systems.base import ModelFolder

PAGE = Page(
    name="models",
    summary="the models that are here, and what they can do",
    description="""\
`vidgen models` lists the models that come with vidgen, and those in the folders of --models: what
each makes, which commands it serves, its size, and what to give to --model to use it.

`vidgen models show MODEL` tells of one model: its components with their configs, numbers of
parameters and SHA-256, the names of its latent space and its text encoder, and how it is sampled
unless you say otherwise. Only the headers of weight files are read, and hashes that are remembered.

`vidgen models verify MODEL` hashes every weight file anew, builds every network, and compares both
with what is there, by name and shape of each tensor. Exit code 3 if anything is wrong.

`vidgen models promote FOLDER` puts a trained model in the place of a shipped one, if it is whole
and no worse: both are sampled for the same validation captions, from the same noise, and the judge
of `vidgen evaluate-world` says what their clips show. Exit code 4, and nothing is changed, if fewer
clips of the new one are right in everything. What a difference means is told beside: how many clips
only one of the two gets right, and p, how likely two equally good models differ by so much or more
(McNemar's exact test, two-sided). The captions are those of validation scenes by which nothing was
trained or chosen. The old model leaves its place when the copy of the new one is complete; its card
stays, and what it has for the same latents (interpolation, upsampler, video_decoder).

FOLDER may also hold such parts alone, beside the autoencoder that they were trained with. They go
into the model that is there, whose autoencoder must be the same, if they come no further from
rendered clips than what they replace, and than what does without them: neighbors blended, frames
enlarged bicubically, the image decoder. PSNR decides.

`vidgen models card MODEL` writes a model card in Markdown: every figure in it comes from the files
of the model, from the report of its clips and from the folders of the runs that trained it. The
same files give the same card.""",
    writes="a table, or the card, to standard output",
    examples=[
        ("vidgen models", "all there are"),
        ("vidgen models show world", "one of them"),
        ("vidgen models verify world", "whether it is whole"),
        ("vidgen models --json", "for other programs"),
        ("vidgen models promote runs/world-keyframes/model -n", "what promoting it would do"),
        ("vidgen models card world --report report.json --run runs/world-keyframes -o card.md",
         "its card"),
    ],
    notes={
        "FILES": """\
A model is a folder as diffusers has it: model_index.json, and a folder for each component with a
config and safetensors weights. Hashes are remembered in $XDG_CACHE_HOME/vidgen/weights.""",
    },
    see_also=["vidgen-systems(1)", "vidgen-train(1)", "vidgen-evaluate-world(1)"],
)  # fmt: skip

Action = Annotated[
    Literal["list", "show", "verify", "promote", "card"],
    argument("ACTION", "list (the default), show, verify, promote or card"),
]
Model = Annotated[
    str | None,
    argument("MODEL", "a model's name or folder; all by default, for list and verify"),
]
Folders = Annotated[
    str | None,
    option("--models", "--dir", metavar="PATH", default="none",
           help=f"more folders of models, or models, with `{os.pathsep}` between them"),
]  # fmt: skip

_COMPONENT = obj(
    {
        "name": TEXT,
        "class": TEXT,
        "parameters": or_null(WHOLE),
        "dtypes": array(TEXT),
        "bytes": WHOLE,
        "files": array(TEXT),
        "sha256": or_null(SHA256),
        "config": {"type": "object"},
        "problems": array(TEXT),
    },
    optional=("problems",),
)
SCHEMAS = {
    "vidgen.models/1": report(
        "vidgen.models/1",
        "What `vidgen models --json` prints; `problems` are there after `verify`",
        {
            "models": array(
                obj(
                    {
                        "name": TEXT,
                        "path": TEXT,
                        "system": TEXT,
                        "shipped": SWITCH,
                        "serves": array(TEXT),
                        "latent_space": or_null(TEXT),
                        "text_encoder": or_null(TEXT),
                        "sampler": or_null({"type": "object"}),
                        "geometry": or_null({"type": "object"}),
                        "components": array(_COMPONENT),
                    }
                )
            )
        },
    ),
    **PROMOTED,
}


# Action → what to say when it needs a model and has none: the question, a line to type.
NEXT = {
    "show": ("which model is to be shown?", "vidgen models show world"),
    "promote": ("which model is to be promoted?", "vidgen models promote runs/NAME/model"),
    "card": ("of which model is the card?", "vidgen models card world --report report.json"),
}


def models(
    console: Console,
    out: FileOutput,
    action: Action = "list",
    model: Model = None,
    *,
    folders: Folders = None,
    name: As = "world",
    num: Num = 128,
    judge: Judge = None,
    models_dir: ModelsDir = None,
    report: Report = None,
    also: Also = None,
    run: Runs = None,
    failures: Failures = None,
    curve: Curves = None,
    json: Json = False,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> int | None:
    given: dict[str, dict[str, Any]] = {
        "promote": {"--dry-run": dry_run, "--models-dir": models_dir},
        "card": {"--report": report, "--also": also, "--run": run, "--failures": failures,
                 "--curve": curve, "--output": out.output != "-", "--force": out.force},
    }  # fmt: skip
    refuse_others(action, given)
    if action in NEXT and model is None:
        what, line = NEXT[action]
        raise UsageError(what, next=line)
    if action == "promote" and model is not None:
        promote(
            console, model, name=name, num=num, judge=judge, models_dir=models_dir,
            device=device, dry_run=dry_run, json=json,
        )  # fmt: skip
        return None
    found = find(folders, console)
    if model is not None:
        found = [pick(model, found)]
    described = [describe(folder) for folder in found]
    if action == "card":
        card(described[0], out, report=report, also=also or (), runs=run or (),
             failures=failures, curves=curve or ())  # fmt: skip
        return None
    if action == "verify":
        _verify(found, described)
    if json:
        print_json({"schema": "vidgen.models/1", "models": described})
    else:
        show = {"list": as_table, "show": as_detail, "verify": as_verdict}[action]
        print_text(show(described))
    if any(c.get("problems") for m in described for c in m["components"]):
        bad = next(m for m in described if any(c["problems"] for c in m["components"]))
        raise InputError(f"{bad['path']}: the model is not whole", next="fetch or export it again")
    return None


def refuse_others(action: str, given: Mapping[str, Mapping[str, Any]]) -> None:
    """UsageError for an option of another action; `given`: action → its options' values."""
    for other, options in given.items():
        flag = next((flag for flag, value in options.items() if value), None)
        if flag and action != other:
            raise UsageError(f"{flag} is for `vidgen models {other}`, not for {action}")


def _verify(found: Sequence[ModelFolder], described: Sequence[dict[str, Any]]) -> None:
    """Add `problems` to each component."""
    from vidgen.systems.verify import verify

    for folder, row in zip(found, described, strict=True):
        problems = dict(verify(folder, components(folder)))
        for component in row["components"]:
            component["problems"] = problems[component["name"]]


# --- printing -------------------------------------------------------------------------------------


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a model."""
    if not rows:
        return "there are no models here; `vidgen train` makes some"
    lines = [("model", "system", "makes", "serves", "size", "--model")]
    for m in rows:
        size = _megabytes(sum(c["bytes"] for c in m["components"]))
        name = m["name"] if m["shipped"] else m["path"]
        lines.append((m["name"], m["system"], _makes(m), ", ".join(m["serves"]), size, name))
    return "\n".join(_columns(lines))


def as_detail(rows: Sequence[dict[str, Any]]) -> str:
    """All that is known of the models."""
    return "\n\n".join("\n".join(_detail(m)) for m in rows)


def _detail(m: dict[str, Any]) -> Iterator[str]:
    yield f"{m['name']}: {m['path']}"
    s = m["sampler"]
    facts = [
        ("system", m["system"]),
        ("serves", ", ".join(m["serves"]) or "-"),
        ("makes", _makes(m)),
        ("latent space", m["latent_space"] or "-"),
        ("text encoder", m["text_encoder"] or "-"),
        ("sampler", ", ".join(f"{key} {value}" for key, value in s.items()) if s else "-"),
    ]
    yield from _columns([("  " + key, value) for key, value in facts])
    for c in m["components"]:
        count = f", {c['parameters']:,} parameters" if c["parameters"] is not None else ""
        kinds = f", {' and '.join(c['dtypes'])}" if c["dtypes"] else ""
        yield f"\n{c['name']}: {c['class']}{count}{kinds}, {_megabytes(c['bytes'])}"
        lines = [("  sha256", c["sha256"])] if c["sha256"] else []
        lines += [(f"  {key}", jsonlib.dumps(v)) for key, v in _shown(c["config"])]
        yield from _columns(lines)


def _shown(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of a config is worth a line: not who wrote it, nor long tables."""
    for key, value in sorted(config.items()):
        if not key.startswith("_") and len(jsonlib.dumps(value)) <= 100:
            yield key, value


def as_verdict(rows: Sequence[dict[str, Any]]) -> str:
    """A line a component: that it is whole, or what is wrong with it."""
    if not rows:
        return "there are no models here"
    lines = [
        (m["name"], c["name"], "; ".join(c["problems"]) or f"whole{_hash(c)}")
        for m in rows
        for c in m["components"]
    ]
    return "\n".join(_columns(lines))


def _hash(component: dict[str, Any]) -> str:
    return f", sha256 {component['sha256']}" if component["sha256"] else ""


def _makes(m: dict[str, Any]) -> str:
    if (g := m["geometry"]) is None:
        return "-"
    return f"{g['num_frames']} frames of {g['width']}x{g['height']} at {g['fps']:g} fps"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{printable(x):<{w}}" for x, w in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
