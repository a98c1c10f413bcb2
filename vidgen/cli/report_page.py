"""A report as one page of HTML: nothing is loaded from elsewhere and nothing in it runs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vidgen.cli.report_plots import COLORS, curves, drawable, histogram, text
from vidgen.cli.report_text import ARROWS, shown, shown_interval
from vidgen.metrics.report import Report, Score, number, plain

if TYPE_CHECKING:
    import numpy as np

    from vidgen.cli.reporting import Media

MOST_CLIPS, MOST_FRAMES, MOST_HEIGHT, FPS = 12, 24, 128, 8
GAP = 4  # pixels between a clip and the one beside it
EXTREMES = 3  # clips named at either end of a histogram

_STYLE = """\
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } th, td { padding: .2em .8em .2em 0; text-align: left;
  vertical-align: top } section { overflow-x: auto }
th { font-weight: 600 } tr + tr > * { border-top: 1px solid #8884 }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.warnings { border-left: 4px solid #d1622b; padding-left: 1.5em }
.plots, .clips { display: flex; flex-wrap: wrap; gap: 1em } figure { margin: 0; max-width: 100% }
figcaption { font-size: .85em; max-width: 420px; overflow-wrap: anywhere }
svg { max-width: 100%; height: auto }
.clips img { height: 160px; max-width: 100%; object-fit: contain; image-rendering: pixelated }
pre { overflow: auto; max-height: 30em }
"""


def page(report: Report, media: Media = ()) -> str:
    """The page. `media`: (id, clip, what is shown to its right or None), of which the first 12 are
    taken, in 24 frames and 128 pixels of height at most."""
    whole = plain(report.to_dict())
    parts = [
        f"<h1>{text(report.tool)}</h1>",
        _warnings(report.warnings),
        _section("Scores", _scores(report.scores)),
        _section("Settings", _pairs(whole["settings"])),
        _section("Inputs", _rows(whole["inputs"])),
        _section("Clip by clip", _histograms(report, whole["items"])),
        _section("Curves", _curves(whole["details"])),
        _section("Clips", _clips(media)),
        _section("Details", _raw(whole["details"])),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{text(report.tool)}</title><style>\n{_STYLE}</style></head><body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>" if body else ""


def _warnings(warnings: list[str]) -> str:
    return (
        '<ul class="warnings">' + "".join(f"<li>{text(w)}</li>" for w in warnings) + "</ul>"
        if warnings
        else ""
    )


def _scores(scores: Mapping[str, Score]) -> str:
    head = "".join(
        f'<th class="number">{word}</th>' for word in ("", "value", "", "95 % interval", "n")
    )
    rows = [
        f'<tr><th scope="row">{text(name)} {_arrow(one)}</th>'
        f'<td class="number">{shown(one.value)}</td><td>{text(one.unit)}</td>'
        f'<td class="number">{shown_interval(one)}</td><td class="number">{one.n}</td></tr>'
        for name, one in scores.items()
    ]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _arrow(score: Score) -> str:
    arrow = ARROWS[score.better]
    return f'<span title="{score.better} is better">{arrow}</span>' if arrow else ""


def _value(value: Any) -> str:
    """A value in a cell; of a SHA-256 what tells two apart, and all of it under the mouse."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f'<span title="{value}">{value[:16]}…</span>'
    return text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _pairs(values: Mapping[str, Any]) -> str:
    rows = (
        f'<tr><th scope="row">{text(name)}</th><td>{_value(value)}</td></tr>'
        for name, value in _flat(values, "")
    )
    return f"<table>{''.join(rows)}</table>" if values else ""


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """`sampling.fps` for what is within another object."""
    if not isinstance(value, dict) or not value:
        yield place, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{place}.{key}" if place else key)


def _rows(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{text(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_value(row.get(c, ''))}</td>" for c in columns) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>" if columns else ""


# --- plots ----------------------------------------------------------------------------------------


def _histograms(report: Report, items: list[dict[str, Any]]) -> str:
    """One for each key with numbers in it."""
    keys = dict.fromkeys(key for item in items for key in item if key != "id")
    figures = [_histogram(key, items, report.scores.get(key)) for key in keys]
    return _plots(figures)


def _plots(figures: list[str]) -> str:
    figures = [one for one in figures if one]
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def _histogram(key: str, items: list[dict[str, Any]], score: Score | None) -> str:
    found = [(x, str(item.get("id", i))) for i, item in enumerate(items)
             if (x := number(item.get(key))) is not None]  # fmt: skip
    finite = sorted((x, id) for x, id in found if drawable(x))
    if not finite:
        return ""
    words = [f"{key}, {len(finite)} clip{'s' if len(finite) != 1 else ''}"]
    if odd := len(found) - len(finite):
        words.append(f"{odd} infinite or not a number, not drawn")
    if without := len(items) - len(found):
        words.append(f"{without} without it")
    if len(finite) > 1:
        for name, end in (("lowest", finite[:EXTREMES]), ("highest", finite[::-1][:EXTREMES])):
            words.append(f"{name}: " + ", ".join(f"{id} {shown(x)}" for x, id in end))
    svg = histogram([x for x, _ in finite], key, score.value if score else None)
    return f"<figure>{svg}<figcaption>{text('; '.join(words))}</figcaption></figure>"


def _curves(details: Mapping[str, Any]) -> str:
    figures = []
    for name, curve in _found_curves(details, ""):
        (x_name, xs), *lines = curve.items()
        figures += [
            f"<figure>{curves(x_name, xs, dict(some))}"
            f"<figcaption>{text(name)}</figcaption></figure>"
            for i in range(0, len(lines), len(COLORS))
            if (some := lines[i : i + len(COLORS)])
        ]
    return _plots(figures)


def _found_curves(value: Any, place: str) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """(place, curve) of every object within whose lists are numbers, two or more of one length,
    the first of them x."""
    if not isinstance(value, dict):
        return
    lists = {key: column for key, column in value.items() if isinstance(column, list)}
    numbers = {key: [number(x) for x in column] for key, column in lists.items()}
    lengths = {len(column) for column in numbers.values()}
    whole = all(x is not None for column in numbers.values() for x in column)
    if len(numbers) > 1 and whole and len(lengths) == 1 and min(lengths) > 1:
        yield place, {k: [x for x in column if x is not None] for k, column in numbers.items()}
    for key, inner in value.items():
        yield from _found_curves(inner, f"{place}.{key}" if place else key)


def _raw(details: Mapping[str, Any]) -> str:
    if not details:
        return ""
    words = text_block(json.dumps(details, ensure_ascii=False, indent=1))
    return f"<details><summary>as JSON</summary><pre>{words}</pre></details>"


def text_block(words: str) -> str:
    """Lines of text, escaped."""
    return "\n".join(text(line) for line in words.split("\n"))


# --- clips ----------------------------------------------------------------------------------------


def _clips(media: Media) -> str:
    figures: list[str] = []
    more = False
    for one in media:  # of which only one is in memory at a time
        if more := len(figures) == MOST_CLIPS:
            break
        figures.append(_clip(*one))
    if not figures:
        return ""
    words = f"The first {MOST_CLIPS} clips; there are more. " if more else ""
    words += f"At most {MOST_FRAMES} frames of each, evenly spaced, at {FPS} a second."
    return f'<p>{words}</p><div class="clips">{"".join(figures)}</div>'


def _clip(id: str, clip: np.ndarray, beside: np.ndarray | None) -> str:
    from fractions import Fraction

    from vidgen.io.gif import encode_gif
    from vidgen.io.image import encode_png

    shown_frames = _side_by_side(clip, beside)
    if len(shown_frames) > 1:
        kind, data = "gif", encode_gif(shown_frames, Fraction(FPS))
    else:
        kind, data = "png", encode_png(shown_frames[0])
    words = f"{id}: {_size(clip)}"
    if beside is not None:
        words += f"; to its right {_size(beside)}"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    height, width = shown_frames[0].shape[:2]
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" alt="{text(id)}">'
        f"<figcaption>{text(words)}</figcaption></figure>"
    )


def _size(clip: np.ndarray) -> str:
    frames, height, width, _ = clip.shape
    return f"{frames} frame{'s' if frames != 1 else ''}, {width} × {height}"


def _side_by_side(clip: np.ndarray, beside: np.ndarray | None) -> list[np.ndarray]:
    """Frames of the clip, and of the other to the right of them, of one height; the same moments
    of each, evenly spaced."""
    import numpy as np
    from PIL import Image

    both = [clip] if beside is None else [clip, beside]
    count = min(MOST_FRAMES, max(map(len, both)))
    height = min(MOST_HEIGHT, max(one.shape[1] for one in both))

    def frame(one: np.ndarray, i: int) -> np.ndarray:
        at = round(i * (len(one) - 1) / (count - 1)) if count > 1 else 0
        picture = np.ascontiguousarray(one[at])
        if one.shape[1] == height:
            return picture
        width = max(1, round(one.shape[2] * height / one.shape[1]))
        return np.asarray(Image.fromarray(picture).resize((width, height)))

    frames = []
    for i in range(count):
        tiles = [frame(one, i) for one in both]
        gap = np.full((height, GAP, 3), 128, np.uint8)
        frames.append(np.concatenate([x for t in tiles for x in (t, gap)][:-1], axis=1))
    return frames
