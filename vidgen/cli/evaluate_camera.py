"""`vidgen evaluate-camera`: how far camera paths are from those that were asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli.clip_scores import INTERVAL, Better, SkipBad, mean_scores
from vidgen.cli.console import Console
from vidgen.cli.eval_clips import Kept
from vidgen.cli.media import RECORD_SUFFIXES, VIDEO_SUFFIXES
from vidgen.cli.options import argument, option
from vidgen.cli.page import Page
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting
from vidgen.cli.runner import require_stdin
from vidgen.errors import Exit, InputError, UsageError
from vidgen.metrics.report import Report, Score

if TYPE_CHECKING:
    from vidgen.io.camera_files import Trajectory

PAGE = Page(
    name="evaluate-camera",
    summary="how far camera paths are from the reference",
    description="""\
Compares the camera paths of MADE with those of REF, by their ids, or one with one whatever their
names. A path is a file of RealEstate10K, of COLMAP (images.txt), TUM or AC3D (JSON with
`extrinsics`), or a record with `camera.c2w`, as `vidgen world` writes them. Poses of generated
videos come from a reconstruction, such as COLMAP's: vidgen itself estimates none.

Both paths are seen from their own first camera, in float64. Papers print different numbers under
one name, so all are printed, each named by how it is scaled. Where numbers of frames differ, the
denser path is brought to the times of the other, rotations by slerp, and that is said.

A path that stands still has no scale: scores that are divided by one leave the clip out, which is
said, and a made path that stands still while REF's moves is counted in `still`. A reconstruction
that failed is an error; with --skip-bad it is counted as `failed`.""",
    reads="two files, or two folders of files, of camera paths",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen world --level full --seed 4 -o w.safetensors", "a clip that knows its camera"),
        ("vidgen evaluate-camera w.safetensors w.safetensors --max rotation_max=1e-6",
         "a path and itself; exit code 4 if they differ"),
        ("vidgen world --level full --seed 4 | vidgen evaluate-camera w.safetensors - --json",
         "for a program, from a pipe"),
    ],
    notes={
        "SCORES": """\
The usual ones come first: rotation_sum, translation_own_sum and cammc_own are what CamI2V calls
RotErr, relative TransErr and CamMC.

rotation: the angle between the two cameras of a frame; sum (CameraCtrl's RotErr), mean and maximum,
in radians and degrees. translation: the distance of positions, in the units of the files;
translation_own after each path is divided by its own largest distance from its start (CamI2V's
relative TransErr); translation_scaled after the made path is multiplied by the one number that fits
best, which is `scale`: below 0 it went the opposite way, is counted in `opposite`, and is taken
times 0. ate: root of the mean square distance after the best rotation, shift and scale (Umeyama).
It forgives every turn of the whole: a straight path the opposite way, or a flat one mirrored, has
an ate near 0; look at rotation and translation_scaled, too. rpe: the same of steps from frame to
frame. cammc: the sum of the norms of the differences of 3 × 4 poses, raw and _own. still: paths
that stand still where the reference moves. Sums are over all frames, means over all but the first,
whose errors are 0 by construction; with several paths each score is the mean over them.""",
    },
    see_also=["vidgen-world(1)", "vidgen-evaluate-motion(1)"],
)  # fmt: skip

Ref = Annotated[str, argument("REF", "a file or folder of reference paths")]
Made = Annotated[str, argument("MADE", "a file or folder of the paths to judge; - is stdin")]
Matching = Annotated[
    Literal["auto", "order", "span", "seconds"],
    option("--match", metavar="HOW",
           help="frames of the two: in order; by share of their span; by seconds; auto takes"
           " order where there are as many, else span"),
]  # fmt: skip

SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}
_LESS: Better = "lower"
KINDS: dict[str, tuple[Better, str]] = {  # the usual ones first
    "rotation_sum": (_LESS, "rad"),
    "translation_own_sum": (_LESS, ""),
    "cammc_own": (_LESS, ""),
    "cammc": (_LESS, ""),
    "ate": (_LESS, ""),
    "rotation_mean": (_LESS, "rad"),
    "rotation_max": (_LESS, "rad"),
    "rotation_mean_deg": (_LESS, "°"),
    "rotation_max_deg": (_LESS, "°"),
    "translation_own_mean": (_LESS, ""),
    "translation_sum": (_LESS, ""),
    "translation_mean": (_LESS, ""),
    "translation_scaled_sum": (_LESS, ""),
    "translation_scaled_mean": (_LESS, ""),
    "scale": (None, ""),
    "rpe_rotation": (_LESS, "rad"),
    "rpe_translation": (_LESS, ""),
}
COUNTS = ("opposite", "still", "failed")
CAMERA_SUFFIXES = (".txt", ".json", *RECORD_SUFFIXES)


def evaluate_camera(
    console: Console,
    ref: Ref,
    made: Made,
    reporting: Reporting,
    match: Matching = "auto",
    skip_bad: SkipBad = False,
) -> Exit:
    settings: dict[str, Any] = {"match": match, **INTERVAL}
    reporting.check([*KINDS, *COUNTS], tool=PAGE.name, settings=settings)
    kept = Kept(console)
    failed: dict[str, str] = {}
    refs = _paths(ref, kept, failed if skip_bad else None)
    mades = _paths(made, kept, failed if skip_bad else None)
    items = []
    for a, b, id in _pairs(refs, mades, failed, skip_bad):
        try:
            items.append(_compared(a, b, id, match, kept))
        except InputError as error:
            if not skip_bad:
                raise
            failed[id] = error.what
    if not items:
        raise InputError(f"{made}: none of {len(failed)} paths can be compared",
                         why=next(iter(failed.values()), None))  # fmt: skip
    if failed:
        kept.warn(f"{len(failed)} of {len(items) + len(failed)} paths failed: no score has them")
    scores = mean_scores(items, KINDS) | {
        "opposite": _count(sum(item["opposite"] for item in items), len(items)),
        "still": _count(sum(item["still"] == ["made"] for item in items), len(items)),
        "failed": _count(len(failed), len(items) + len(failed)),
    }
    report = Report(
        PAGE.name, settings, [_input("reference", ref, refs), _input("made", made, mades)], scores,
        kept.warnings, items + [{"id": id, "failed": why} for id, why in failed.items()],
    )  # fmt: skip
    return reporting.finish(report, console)


def _count(value: int, of: int) -> Score:
    return Score(float(value), better=_LESS, n=of)


def _compared(a: Trajectory, b: Trajectory, id: str, how: Any, kept: Kept) -> dict[str, Any]:
    """The report's item of one pair; what is to be known of it is warned of."""
    from vidgen.metrics.camera import camera_errors, matched

    ref, made, words = matched(a, b, how)
    if words:
        kept.warn(words)
    errors = camera_errors(ref, made)
    if errors.still:
        kept.warn(f"{id}: the {' and the '.join(errors.still)} path stands still: no scale,"
                  " so no score that needs one")  # fmt: skip
    opposite = errors.scale is not None and errors.scale < 0
    if opposite:
        kept.warn(f"{id}: the best scale is {errors.scale:.3g}: the made path goes the other way")
    bent = max(a.bent, b.bent)
    return {
        "id": id, "frames": len(ref), **errors.values, "opposite": opposite,
        "still": list(errors.still), "resampled": words is not None, "bent": bent,
        "formats": [a.format, b.format],
        "rotation_by_frame": errors.rotation, "translation_by_frame": errors.translation,
    }  # fmt: skip


def _pairs(
    refs: Sequence[Trajectory], mades: Sequence[Trajectory], failed: dict[str, str], skip_bad: bool
) -> list[tuple[Trajectory, Trajectory, str]]:
    """By id; one with one whatever their ids. InputError for what has no counterpart, which with
    `skip_bad` is noted in `failed` instead."""
    if len(refs) == 1 and len(mades) == 1 and not failed:
        return [(refs[0], mades[0], mades[0].id)]
    by_id = {path.id: path for path in mades}
    known = {path.id for path in refs}
    lost = {p.id: "no path of this id was made" for p in refs if p.id not in by_id}
    lost |= {p.id: "no reference of this id" for p in mades if p.id not in known}
    if lost and not skip_bad:
        id, why = next(iter(lost.items()))
        raise InputError(f"`{id}`: {why}", why=f"{len(lost)} paths have no counterpart",
                         next="--skip-bad counts them as failed")  # fmt: skip
    failed.update({id: why for id, why in lost.items() if id not in failed})
    return [(path, by_id[path.id], path.id) for path in refs if path.id in by_id]


def _paths(given: str, kept: Kept, failed: dict[str, str] | None) -> list[Trajectory]:
    """All camera paths of a file or a folder. InputError for what is none; with `failed`, which
    gets its id and why, it is left out."""
    from dataclasses import replace

    from vidgen.io.camera_files import camera_of, read_cameras
    from vidgen.io.stream import read_stream

    if given == "-":
        require_stdin()
        return _distinct([camera_of(record) for record in read_stream("-")], given)
    top = Path(given)
    if not top.exists():
        raise UsageError(f"{given}: no such file or folder")
    found: list[Trajectory] = []
    for file in _files(top, kept):
        # A folder for each video, as COLMAP leaves them: the folder's name is the id.
        parts = file.relative_to(top).parts if top.is_dir() else ()
        id = parts[0] if len(parts) > 1 else None
        try:
            if file.suffix.lower() in VIDEO_SUFFIXES:
                raise InputError(
                    f"{file}: a video has no camera path",
                    next="reconstruct its cameras, with COLMAP for example, or give its records",
                )
            for path in read_cameras(file):
                found.append(replace(path, id=id) if id and file.name == "images.txt" else path)
        except InputError as error:
            if failed is None:
                raise
            failed[id or file.stem] = error.what
    if any(path.format == "COLMAP" and _has_gaps(path) for path in found):
        kept.warn(f"{given}: COLMAP left frames out between the first and the last;"
                  " --match span goes by the numbers of the others")  # fmt: skip
    return _distinct(found, given)


def _has_gaps(path: Trajectory) -> bool:
    if path.times is None or len(path) < 3:
        return False
    steps = path.times[1:] - path.times[:-1]
    return bool((steps != steps[0]).any())


def _files(top: Path, kept: Kept) -> list[Path]:
    if top.is_file():
        return [top]
    colmap = sorted(top.rglob("images.txt"))
    files = colmap or sorted(p for p in top.iterdir() if p.suffix.lower() in CAMERA_SUFFIXES)
    if not files:
        empty = not any(top.iterdir())
        raise InputError(f"{top}: {'is an empty folder' if empty else 'no camera paths in it'}",
                         why=f"looked for: images.txt, {', '.join(CAMERA_SUFFIXES)}")  # fmt: skip
    others = [p for p in top.iterdir() if p.is_file() and p not in files]
    if others:
        many = f"{len(others)} files are no camera paths" if others[1:] else "no camera path"
        names = others[0].name + (", …" if others[1:] else "")
        kept.warn(f"{top}: {many}: {names}")
    return files


def _distinct(paths: list[Trajectory], given: str) -> list[Trajectory]:
    ids = [path.id for path in paths]
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice is not None:
        raise InputError(f"{given}: `{twice}` is in it twice")
    return paths


def _input(role: str, name: str, paths: Sequence[Trajectory]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.id):
        digest.update(path.id.encode() + b"\0" + path.c2w.tobytes())
        digest.update(b"" if path.times is None else path.times.tobytes())
    return {"role": role, "name": name, "clips": len(paths), "sha256": digest.hexdigest()}
