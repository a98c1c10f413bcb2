"""`vidgen diff`: how two files differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

from vidgen.cli.compare import compare_records, compare_videos
from vidgen.cli.console import Console, printable
from vidgen.cli.media import content_of
from vidgen.cli.options import Json, argument, option
from vidgen.cli.page import Page
from vidgen.cli.report_compare import compare_reports, is_json
from vidgen.cli.reporting import REPORT_SCHEMA, SCORE_SCHEMA
from vidgen.cli.runner import print_json, require_stdin
from vidgen.cli.schemas import (
    ANY,
    NUMBER,
    SWITCH,
    TEXT,
    WHOLE,
    array,
    obj,
    one_of,
    or_null,
    report,
)  # fmt: skip
from vidgen.errors import Exit, UsageError
from vidgen.metrics.report import SCHEMA as REPORT
from vidgen.metrics.report import Rule, Verdict

if TYPE_CHECKING:
    from vidgen.io.record import Record

PAGE = Page(
    name="diff",
    summary="how two files differ",
    description="""\
Compares records by their ids, whatever their order: tensors by name, with the greatest difference
and the root of the mean square where values differ, then attributes and the steps of the log. Two
videos are compared frame by frame, with the PSNR, and sample by sample where they have sound.

Of two reports of an evaluation it says for each score whether B is better or worse than A, or
within noise, and by which rule. Reports of different settings are refused, since their numbers mean
different things.

Of records and videos it says nothing about what is equal, like diff and cmp. The exit code is 0
if the files are equal, or differ in numbers by no more than --tolerance or within noise, and 1 if
they differ; 2 and 3 are trouble, as everywhere. How a file is laid out doesn't count: a stream and
its NPZ are equal.""",
    reads="two files of records, NPZ files, videos or reports",
    writes="text, or JSON, to standard output",
    examples=[
        ("vidgen diff a.safetensors b.safetensors || echo they differ", "what differs"),
        ("vidgen diff --tolerance 1e-5 --only-tensors clip.safetensors clip.safetensors",
         "rounding and history don't matter"),
        ("vidgen diff clip.mp4 ball.mp4 || true", "two videos"),
        ("vidgen diff before.json after.json || true", "two reports: better or worse"),
    ],
    notes={
        "NOISE": """\
A difference of at most --tolerance is noise. Beyond it, where a score is the mean over the same
clips (by their ids) in both reports, the difference is taken clip by clip, and is noise if the 95 %
interval of its mean (Student's t) holds 0; at least six clips have to differ. Else it is noise if
the 95 % intervals of the two scores overlap, which is cautious: real differences can be missed.
Scores without either differ as soon as their values do.

Each score is judged by itself: of forty that didn't change, one is worse by chance. What varies
from one training or seed to the next is in no interval.""",
    },
    see_also=["vidgen-inspect(1)", "vidgen-log(1)"],
)  # fmt: skip

_TENSOR = obj(
    {
        "name": TEXT,
        "equal": SWITCH,
        "a": or_null(TEXT),
        "b": or_null(TEXT),
        "differing": or_null(WHOLE),
        "values": or_null(WHOLE),
        "max_abs": or_null(NUMBER),
        "rms": or_null(NUMBER),
    }
)
_RECORD = obj(
    {
        "id": TEXT,
        "equal": SWITCH,
        "missing_in": or_null({"enum": ["a", "b"]}),
        "tensors": array(_TENSOR),
        "attrs": array(obj({"key": TEXT, "a": ANY, "b": ANY}, optional=("a", "b"))),
        "log": array(TEXT),
    }
)
_VIDEO = obj(
    {
        "equal": SWITCH,
        "facts": array(obj({"key": TEXT, "a": ANY, "b": ANY})),
        "frames": or_null(
            obj(
                {
                    "compared": WHOLE,
                    "differing": WHOLE,
                    "first": or_null(WHOLE),
                    "max_abs": WHOLE,
                    "rms": NUMBER,
                    "psnr_db": or_null(NUMBER),
                }
            )
        ),
        "audio_max_abs": or_null(NUMBER),
        "log": array(TEXT),
    }
)
_SCORE = obj(
    {
        "name": TEXT,
        "verdict": one_of(*get_args(Verdict)),
        "rule": or_null(one_of(*get_args(Rule))),
        "a": or_null(SCORE_SCHEMA),
        "b": or_null(SCORE_SCHEMA),
        "change": or_null(SCORE_SCHEMA),
    }
)
SCHEMAS = {
    "vidgen.diff/1": report(
        "vidgen.diff/1",
        "What `vidgen diff --json` prints; max_abs is null where a NaN meets a number",
        {
            "a": TEXT,
            "b": TEXT,
            "equal": SWITCH,
            "tolerance": NUMBER,
            "records": array(_RECORD),
            "video": _VIDEO,
            "scores": array(_SCORE),
        },
        optional=("records", "video", "scores"),
    ),
    REPORT: REPORT_SCHEMA,
}

Tolerance = Annotated[
    float,
    option("--tolerance", metavar="X", min=0,
           help="greatest difference of two values that counts as none"),
]  # fmt: skip
OnlyTensors = Annotated[
    bool, option("--only-tensors", help="compare values only, not attributes and logs")
]


def diff(
    console: Console,
    a: Annotated[str, argument("A", "records, NPZ, a video or a report; - is standard input")],
    b: Annotated[str, argument("B", "what to compare it with")],
    *,
    tolerance: Tolerance = 0.0,
    only_tensors: OnlyTensors = False,
    json: Json = False,
) -> Exit:
    if "-" in (a, b):
        require_stdin()
    if a == b == "-":
        raise UsageError("standard input (`-`) can be read only once")
    kinds = {"report" if is_json(path) else content_of(path) for path in (a, b)}
    if len(kinds) > 1 and "report" in kinds:
        raise UsageError(
            f"{a} and {b}: a report and something else can't be compared",
            next="vidgen diff before.json after.json",
        )
    if len(kinds) > 1:
        raise UsageError(
            f"{a} and {b}: a video and records can't be compared",
            next="vidgen convert VIDEO -o VIDEO.safetensors makes records of it",
        )
    with_history = not only_tensors
    if kinds == {"report"}:
        if only_tensors:
            raise UsageError("--only-tensors: reports have none")
        found = compare_reports(a, b, tolerance)
    elif kinds == {"video"}:
        found = compare_videos(a, b, tolerance, with_history)
    else:
        found = compare_records(_read(a), _read(b), tolerance, with_history)
    if json:
        head = {"schema": "vidgen.diff/1", "a": a, "b": b, "equal": found.equal}
        print_json({**head, "tolerance": tolerance, **found.report})
    else:
        for line in found.lines:
            print(printable(line))
    if found.equal:
        console.note(f"{a} and {b}: {found.summary}")
    return Exit.DONE if found.equal else Exit.FAILED


def _read(path: str) -> dict[str, Record]:
    """All records by id; those of a file stay on disk until they are compared."""
    from vidgen.io.stream import read_stream

    records: dict[str, Record] = {}
    for record in read_stream(path):
        if record.id in records:
            raise UsageError(
                f"{path}: holds several streams, with a record `{record.id}` in more than one",
                next="compare them one at a time",
            )
        records[record.id] = record
    return records
