"""`vidgen models`: the models that are here, and what they can do."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli.console import Console
from vidgen.cli.evaluate_world import Judge
from vidgen.cli.models_card import Also, Curves, Failures, Report, Runs, card
from vidgen.cli.models_find import compare, components, describe, find, pick, stored_as
from vidgen.cli.models_promote import SCHEMAS as PROMOTED
from vidgen.cli.models_promote import As, ModelsDir, Num, promote
from vidgen.cli.models_store import Download, add, counting, remove
from vidgen.cli.models_text import as_detail, as_table, as_verdict
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
`vidgen models` lists the models that come with vidgen, those that have a name here, and those in
the folders of --models: what each makes, which commands it serves, its size, and what to give to
--model to use it. Components of several models that have the same weights, such as one text encoder
of two, are named below.

A model may share components with another, whose name is in its model_index.json: the network of a
paper, on the latents and the text of the shipped model. They aren't counted in its size.

`vidgen models add FOLDER` gives a model folder a name, which --model then takes, in every command.
`vidgen models add OWNER/NAME`, or OWNER/NAME@REVISION, does so for a model of the Hugging Face hub
that is in the hub's cache on this disk. Nothing is copied: the store has a link to each file that
vidgen reads, and its size and SHA-256. Only with --download is anything fetched from the net:
those files, as far as they are not here; what was interrupted goes on from there, and weights that
a stored model has already are linked to, not fetched. A file of the hub's cache that has not the
SHA-256 that the hub says is refused. -f puts a model in the place of another one. `vidgen models
remove MODEL` forgets a name; files stay where they are.

`vidgen models show MODEL` tells of one model: its components with their configs, numbers of
parameters and SHA-256, the names of its latent space and its text encoder, and how it is sampled
unless you say otherwise. Only the headers of weight files are read, and hashes that are remembered.

`vidgen models verify MODEL` hashes every weight file anew, builds every network, and compares both
with what is there, by name and shape of each tensor. Of a stored model every file is compared with
what it was when it was added, first of all: files that are missing, truncated or changed are
named. Exit code 3 if anything is wrong.

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

With --as NAME, what a whole model has of `world` beside the place is shared, not copied, and such
parts are not tried again.

`vidgen models card MODEL` writes a model card in Markdown: every figure in it comes from the files
of the model, from the report of its clips and from the folders of the runs that trained it. The
same files give the same card.""",
    writes="a table, or the card, to standard output",
    examples=[
        ("vidgen models", "all there are"),
        ("vidgen models show world", "one of them"),
        ("vidgen models verify world", "whether it is whole"),
        ("vidgen models add Wan2.1-T2V-1.3B-Diffusers --as wan", "a name for a folder"),
        ("vidgen models --json", "for other programs"),
        ("vidgen models promote runs/world-keyframes/model -n", "what promoting it would do"),
        ("vidgen models card world --report report.json --run runs/world-keyframes -o card.md",
         "its card"),
    ],
    notes={
        "FILES": """\
A model is a folder as diffusers has it: model_index.json, and a folder for each component with a
config and safetensors weights. Hashes are remembered in $XDG_CACHE_HOME/vidgen/weights.

Stored models are folders of links in $XDG_DATA_HOME/vidgen/models (default ~/.local/share), each
with a manifest.json. The hub's cache is where HF_HOME and HF_HUB_CACHE say.""",
        "NAMES": """\
What --model is given is a folder's path, if it has a slash in it and that folder is there.
Otherwise it is the name of a shipped model, of a stored one (of one from the hub OWNER/NAME is a
name, too), of a folder in those of VIDGEN_MODELS, or of a folder here. A name of several models is
an error that tells where they are; a path says which is meant.""",
    },
    see_also=["vidgen-systems(1)", "vidgen-train(1)", "vidgen-evaluate-world(1)"],
)  # fmt: skip

Action = Annotated[
    Literal["list", "add", "remove", "show", "verify", "promote", "card"],
    argument("ACTION", "list (the default), add, remove, show, verify, promote or card"),
]
Model = Annotated[
    str | None,
    argument(
        "MODEL",
        "a model's name or folder; all by default, for list and verify; for add a"
        " folder, or OWNER/NAME of the hub",
    ),
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
        "of": or_null(TEXT),
        "parameters": or_null(WHOLE),
        "dtypes": array(TEXT),
        "bytes": WHOLE,
        "files": array(TEXT),
        "sha256": or_null(SHA256),
        "same_as": array(TEXT),
        "config": {"type": "object"},
        "problems": array(TEXT),
    },
    optional=("problems",),
)
SCHEMAS = {
    "vidgen.models/1": report(
        "vidgen.models/1",
        "What `vidgen models --json` prints; `problems` are there after `verify`, those of a model"
        " itself are of files that belong to no component. stored: where a stored model comes from:"
        " a folder, and of the hub `repo`, `revision` and `commit`. of: whose component it is,"
        " where it is shared; same_as: components of other models with the same weight files",
        {
            "models": array(
                obj(
                    {
                        "name": TEXT,
                        "path": TEXT,
                        "system": TEXT,
                        "shipped": SWITCH,
                        "stored": or_null({"type": "object"}),
                        "serves": array(TEXT),
                        "latent_space": or_null(TEXT),
                        "text_encoder": or_null(TEXT),
                        "sampler": or_null({"type": "object"}),
                        "geometry": or_null({"type": "object"}),
                        "components": array(_COMPONENT),
                        "problems": array(TEXT),
                    },
                    optional=("problems",),
                )
            )
        },
    ),
    **PROMOTED,
}


# Action → what to say when it needs a model and has none: the question, a line to type.
NEXT = {
    "add": ("which folder is to be added?", "vidgen models add FOLDER --as NAME"),
    "remove": ("which model is to be forgotten?", "vidgen models remove NAME"),
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
    name: As = None,
    download: Download = False,
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
    given = {
        "--as": (name, {"add", "promote"}), "--download": (download, {"add"}),
        "--dry-run": (dry_run, {"add", "promote"}), "--models-dir": (models_dir, {"promote"}),
        "--report": (report, {"card"}), "--also": (also, {"card"}), "--run": (run, {"card"}),
        "--failures": (failures, {"card"}), "--curve": (curve, {"card"}),
        "--output": (out.output != "-", {"card"}), "--force": (out.force, {"add", "card"}),
    }  # fmt: skip
    refuse_others(action, given)
    if action in NEXT and model is None:
        what, line = NEXT[action]
        raise UsageError(what, next=line)
    match action, model:
        case "promote", str():
            promote(
                console, model, name=name or "world", num=num, judge=judge, models_dir=models_dir,
                device=device, dry_run=dry_run, json=json,
            )  # fmt: skip
            return None
        case "add", str():
            add(console, model, name, download=download, force=out.force, dry_run=dry_run)
            return None
        case "remove", str():
            remove(console, model)
            return None
    everything = find(folders, console)
    found = everything if model is None else [pick(model, everything)]
    described = [describe(folder) for folder in found]
    if action == "card":
        card(described[0], out, report=report, also=also or (), runs=run or (),
             failures=failures, curves=curve or ())  # fmt: skip
        return None
    compare(described, everything)
    for m in described:
        if damaged := [c["name"] for c in m["components"] if c["files"] and not c["sha256"]]:
            told = (
                f"{', '.join(damaged)} can't be read; `vidgen models verify {m['name']}` says why"
            )
            if action != "verify":
                console.warn(f"{m['name']}: {told}")
    if action == "verify":
        _verify(found, described, console)
    if json:
        print_json({"schema": "vidgen.models/1", "models": described})
    else:
        show = {"list": as_table, "show": as_detail, "verify": as_verdict}[action]
        print_text(show(described))
    if bad := next((m for m in described if _problems(m)), None):
        raise InputError(f"{bad['path']}: the model is not whole", next=_mended(bad))
    return None


def refuse_others(action: str, given: Mapping[str, tuple[Any, Collection[str]]]) -> None:
    """UsageError for an option of other actions; `given`: option → its value, the actions that it
    is for."""
    for flag, (value, actions) in given.items():
        if value and action not in actions:
            one = " and ".join(f"`vidgen models {other}`" for other in sorted(actions))
            raise UsageError(f"{flag} is for {one}, not for {action}")


def _mended(m: dict[str, Any]) -> str:
    """What makes a model whole again."""
    stored = m["stored"]
    if stored and "repo" in stored:
        wanted = f"{stored['repo']}@{stored['commit']}"
        return f"vidgen models add --download {wanted} --as {m['name']} -f fetches what is missing"
    if stored:
        line = f"vidgen models add {stored['folder']} --as {m['name']} -f"
        return f"{line}, if it is as it should be now"
    return "fetch or export it again"


def _problems(m: dict[str, Any]) -> bool:
    return any(x.get("problems") for x in (m, *m["components"]))


def _verify(
    found: Sequence[ModelFolder], described: Sequence[dict[str, Any]], console: Console
) -> None:
    """Add `problems` to each model and component. What has changed since it was added is not looked
    at further."""
    from vidgen.systems.verify import verify

    for folder, row in zip(found, described, strict=True):
        parts = components(folder)
        row["problems"] = []
        changed: dict[str, list[str]] = {name: [] for name in parts}
        stored = stored_as(folder)
        if stored is not None:
            for file, wrong in stored.changes(counting(console, "read")).items():
                part, _, name = file.rpartition("/")
                told = changed.get(part, row["problems"])
                told.append(f"{name}: {wrong}")
        same = {name: kind for name, kind in parts.items() if not changed[name]}
        problems = changed | dict(verify(folder, same, hashes=stored is None))
        for component in row["components"]:
            component["problems"] = problems[component["name"]]
