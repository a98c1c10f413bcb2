"""What `vidgen diff` finds between two sets of records, or two videos.

Differences are computed a part at a time in float64, so that two files of any size can be
compared. Values that are NaN on both sides are equal, as are infinities of one sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vidgen.io.record import Blob, Record

PART = 1 << 20  # values compared at a time


@dataclass
class Comparison:
    """What was found: lines for people, an object for programs."""

    summary: str
    report: dict[str, Any]
    equal: bool = True
    lines: list[str] = field(default_factory=list)

    def differ(self, line: str) -> None:
        self.equal = False
        self.lines.append(line)


@dataclass
class Distance:
    """How far two arrays of one shape are apart."""

    values: int = 0
    differing: int = 0
    max_abs: float = 0.0  # inf: an infinity, or a NaN that meets a number
    squares: float = 0.0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Count in two arrays of one shape."""
        import numpy as np

        wide = complex if np.iscomplexobj(a) else float
        x, y = a.astype(wide).ravel(), b.astype(wide).ravel()
        same = (a.ravel() == b.ravel()) | ((x != x) & (y != y))
        self.values += x.size
        if same.all():
            return
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(np.where(same, 0, x - y))
        # Integers beyond 2^53 may differ by less than float64 can tell: then it is 1 at least.
        if a.dtype.kind in "iu":
            apart = np.where(same, 0, np.maximum(apart, 1))
        apart = np.where(np.isnan(apart), np.inf, apart)
        self.differing += int((~same).sum())
        self.max_abs = max(self.max_abs, float(apart.max()))
        self.squares += float(np.square(apart).sum())

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / self.values) if self.values else 0.0

    def words(self) -> str:
        far = f"max {self.max_abs:.4g}, rms {self.rms:.4g}"
        if math.isinf(self.max_abs):
            far = "a NaN or an infinity on one side"
        return f"{self.differing} of {self.values} values differ: {far}"


# --- records --------------------------------------------------------------------------------------


def compare_records(
    a: Mapping[str, Record], b: Mapping[str, Record], tolerance: float, with_history: bool
) -> Comparison:
    """Records by id. `with_history`: kinds, attrs and logs too."""
    rows: list[dict[str, Any]] = []
    found = Comparison(f"{len(a)} record{'s' if len(a) != 1 else ''} equal", {"records": rows})
    for id in [*a, *(id for id in b if id not in a)]:
        row: dict[str, Any] = {
            "id": id, "equal": True, "missing_in": None, "tensors": [], "attrs": [], "log": [],
        }  # fmt: skip
        lines: list[str] = []
        if id not in a or id not in b:
            row["missing_in"] = "b" if id in a else "a"
            lines.append(f"{id}: only in {'A' if id in a else 'B'}")
        else:
            lines += _compare_tensors(a[id], b[id], tolerance, row["tensors"])
            if with_history:
                lines += _compare_attrs(_facts(a[id]), _facts(b[id]), row["attrs"], id)
                row["log"] = list(log_differences(a[id].log, b[id].log))
                lines += [f"{id}: log: {line}" for line in row["log"]]
        row["equal"] = not lines
        rows.append(row)
        for line in lines:
            found.differ(line)
    return found


def _facts(record: Record) -> dict[str, Any]:
    """The attrs, and the kind where no attr is called so."""
    return {"kind": record.kind, **record.attrs}


def _compare_tensors(
    a: Record, b: Record, tolerance: float, rows: list[dict[str, Any]]
) -> Iterator[str]:
    for name in sorted({*a.tensors, *b.tensors}):
        x, y = a.tensors.get(name), b.tensors.get(name)
        row: dict[str, Any] = {
            "name": name, "equal": False, "a": _shape(x), "b": _shape(y),
            "differing": None, "values": None, "max_abs": None, "rms": None,
        }  # fmt: skip
        rows.append(row)
        if x is None or y is None:
            side = "A" if y is None else "B"
            yield f"{a.id}: tensor {name} ({row['a'] or row['b']}) is only in {side}"
        elif row["a"] != row["b"]:
            yield f"{a.id}: tensor {name} is {row['a']} in A, {row['b']} in B"
        else:
            far = distance(x, y)
            finite = math.isfinite(far.max_abs)
            row |= {
                "equal": far.max_abs <= tolerance, "differing": far.differing,
                "values": far.values, "max_abs": far.max_abs if finite else None,
                "rms": far.rms if finite else None,
            }  # fmt: skip
            if not row["equal"]:
                yield f"{a.id}: tensor {name} ({row['a']}): {far.words()}"


def _shape(blob: Blob | None) -> str | None:
    """`F32 [16, 5, 5, 8]`"""
    return None if blob is None else f"{blob.dtype} {list(blob.shape)}"


def distance(x: Blob, y: Blob) -> Distance:
    """How far two tensors of one dtype and shape are apart."""
    far = Distance()
    if x.data == y.data:
        far.values = math.prod(x.shape)
        return far
    a, b = _array(x), _array(y)
    for start in range(0, len(a), PART):
        far.add(a[start : start + PART], b[start : start + PART])
    return far


def _array(blob: Blob) -> np.ndarray:
    """The values, flat; float32 for the dtypes that NumPy lacks."""
    try:
        return blob.numpy().reshape(-1)
    except TypeError:
        return blob.torch().float().numpy().reshape(-1)


def _compare_attrs(
    a: Mapping[str, Any], b: Mapping[str, Any], rows: list[dict[str, Any]], id: str
) -> Iterator[str]:
    for key in sorted({*a, *b}):
        sides = {side: values[key] for side, values in (("a", a), ("b", b)) if key in values}
        if len(sides) == 2 and sides["a"] == sides["b"]:
            continue
        rows.append({"key": key, **sides})
        if len(sides) == 2:
            yield f"{id}: {key}: {_words(sides['a'])} in A, {_words(sides['b'])} in B"
        else:
            ((side, value),) = sides.items()
            yield f"{id}: {key}: {_words(value)}, only in {side.upper()}"


def log_differences(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Iterator[str]:
    """In words, what differs in two logs step by step. Ids don't count: they follow."""
    for number, (x, y) in enumerate(zip_longest(a, b), 1):
        if x is None or y is None:
            tool = (x or y).get("tool", "?")
            yield f"step {number} ({tool}) is only in {'A' if y is None else 'B'}"
            continue
        for key in sorted({*x, *y} - {"id", "previous"}):
            if x.get(key) != y.get(key):
                what = f"step {number} ({x.get('tool', '?')}): {key}"
                yield f"{what}: {_words(x.get(key))} in A, {_words(y.get(key))} in B"


def _words(value: Any) -> str:
    """A value of an attr, short enough for a line."""
    import json

    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 100 else text[:99] + "…"


# --- videos ---------------------------------------------------------------------------------------


def compare_videos(a: str, b: str, tolerance: float, with_history: bool) -> Comparison:
    """Two videos frame by frame, at most two frames in memory; sound where both have it."""
    from vidgen.cli.media import history_of
    from vidgen.io.video import probe

    one, two = probe(a), probe(b)
    row: dict[str, Any] = {
        "equal": False, "facts": [], "frames": None, "audio_max_abs": None, "log": [],
    }  # fmt: skip
    found = Comparison("the videos are equal", {"video": row})
    for key in ("width", "height", "fps", "has_audio", "sample_rate", "channels"):
        x, y = getattr(one, key), getattr(two, key)
        if x != y and not (key == "fps" and math.isclose(x, y, rel_tol=1e-4)):
            row["facts"].append({"key": key, "a": x, "b": y})
            found.differ(f"{key}: {x} in A, {y} in B")
    if (one.width, one.height) == (two.width, two.height):
        row["frames"] = _compare_frames(a, b, tolerance, found)
    sound = [(i.has_audio, i.sample_rate, i.channels) for i in (one, two)]
    if one.has_audio and sound[0] == sound[1]:
        row["audio_max_abs"] = _compare_audio(a, one.start_s, b, two.start_s, tolerance, found)
    if with_history:
        x_made, y_made = history_of(a) or {}, history_of(b) or {}
        attrs: list[dict[str, Any]] = []
        for line in _compare_attrs(x_made.get("attrs", {}), y_made.get("attrs", {}), attrs, "made"):
            found.differ(line)
        row["facts"] += [{"a": None, "b": None, **attr} for attr in attrs]
        row["log"] = list(log_differences(x_made.get("log", []), y_made.get("log", [])))
        for line in row["log"]:
            found.differ(f"log: {line}")
    row["equal"] = found.equal
    return found


def _compare_frames(a: str, b: str, tolerance: float, found: Comparison) -> dict[str, Any]:
    from vidgen.io.video import iter_frames

    total, first, differing, counts = Distance(), None, 0, [0, 0]
    for index, pair in enumerate(zip_longest(iter_frames(a), iter_frames(b))):
        counts = [n + (frame is not None) for n, frame in zip(counts, pair, strict=True)]
        if None in pair:
            continue
        far = Distance()
        far.add(pair[0].rgb, pair[1].rgb)
        total.values += far.values
        total.differing += far.differing
        total.squares += far.squares
        total.max_abs = max(total.max_abs, far.max_abs)
        if far.differing:
            differing += 1
            first = index if first is None else first
    if counts[0] != counts[1]:
        found.differ(f"frames: {counts[0]} in A, {counts[1]} in B")
    mean = total.squares / max(total.values, 1)
    psnr = 10 * math.log10(255**2 / mean) if mean else None
    if total.max_abs > tolerance:
        found.differ(
            f"{differing} of {min(counts)} frames differ, the first is frame {first}:"
            f" max {total.max_abs:g}, rms {total.rms:.4g}, PSNR {psnr:.2f} dB"
        )
    return {
        "compared": min(counts), "differing": differing, "first": first,
        "max_abs": int(total.max_abs), "rms": total.rms, "psnr_db": psnr,
    }  # fmt: skip


def _compare_audio(
    a: str, start_a: float, b: str, start_b: float, tolerance: float, found: Comparison
) -> float:
    from vidgen.io.video_file import read_audio

    x, y = read_audio(a, start_a), read_audio(b, start_b)
    if x.shape != y.shape:
        found.differ(f"audio: {x.shape[1]} samples in A, {y.shape[1]} in B")
    length, far = min(x.shape[1], y.shape[1]), Distance()
    far.add(x[:, :length], y[:, :length])
    if far.max_abs > tolerance:
        found.differ(f"audio: {far.words()}")
    return far.max_abs
