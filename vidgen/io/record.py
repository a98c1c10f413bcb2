"""A record: one sample at one stage. Named tensors, one JSON object, a log of what made it.

Nothing here reads or writes files (stream.py does) and nothing imports torch or NumPy until a
tensor is asked for, so that `vidgen inspect` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from vidgen.errors import InputError, UsageError, VidgenError
from vidgen.io.checks import bad_value, record_digest
from vidgen.io.layout import (
    ITEM_BYTES,
    Place,
    canonical_json,
    nbytes,
    pack_header,
    parse_json,
    place_tensors,
    short,
)
from vidgen.io.log import link

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

JSON = Any  # what json.loads returns

KINDS = ("text", "latents", "frames", "audio", "features", "motion", "camera", "events", "report")
SCHEMA = "vidgen.record/1"
ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}", re.ASCII)

_NUMPY = {
    "F64": "float64", "F32": "float32", "F16": "float16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_TORCH = _NUMPY | {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_OF_NUMPY = {v: k for k, v in _NUMPY.items()}
_OF_TORCH = {v: k for k, v in _TORCH.items()}


class Blob:
    """One tensor: a dtype by its safetensors name, a shape, and bytes that are never written to.

    dtype   "F32", "BF16", "U8", … (`layout.ITEM_BYTES`)
    data    a memoryview of bytes, row-major, little-endian; often a window into a memory map
    sha256  the tensor's digest (`checks.tree_sha256`) once somebody has computed it
    """

    __slots__ = ("data", "dtype", "sha256", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], data: memoryview) -> None:
        self.dtype = dtype
        self.shape = shape
        self.data = data
        self.sha256: str | None = None

    @classmethod
    def of(cls, x: ndarray | Tensor | Blob) -> Blob:
        """A NumPy array or a torch tensor of any device as a Blob. It shares the memory of `x`
        where `x` is contiguous and on the CPU: don't write to `x` afterwards."""
        if isinstance(x, Blob):
            return x
        if hasattr(x, "detach"):
            return cls._of_torch(cast("Tensor", x))
        import numpy as np

        array = np.ascontiguousarray(x).reshape(np.shape(x))  # which makes 0-d 1-d, hence reshape
        name = _OF_NUMPY.get(array.dtype.name)
        if name is None:
            raise TypeError(f"a NumPy array of {array.dtype} has no place in a record")
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return cls(name, array.shape, little.reshape(-1).view(np.uint8).data)

    @classmethod
    def _of_torch(cls, x: Tensor) -> Blob:
        import torch

        name = _OF_TORCH.get(str(x.dtype).removeprefix("torch."))
        if name is None:
            raise TypeError(f"a tensor of {x.dtype} has no place in a record")
        flat = x.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        return cls(name, tuple(x.shape), flat.view(torch.uint8).numpy().data)

    @property
    def nbytes(self) -> int:
        return nbytes(self.dtype, self.shape)

    def numpy(self) -> ndarray:
        """The tensor as a read-only array, without a copy. TypeError for the dtypes that NumPy
        lacks: `.torch()` has them."""
        import numpy as np

        if self.dtype not in _NUMPY:
            raise TypeError(f"NumPy has no {self.dtype}: use .torch()")
        array = np.frombuffer(self.data, _NUMPY[self.dtype]).reshape(self.shape)
        array.flags.writeable = False
        return array

    def torch(self) -> Tensor:
        """The tensor on the CPU, without a copy where its bytes are aligned. It may be the memory
        of others, or of a file: don't write to it."""
        import torch

        dtype = getattr(torch, _TORCH[self.dtype])
        if not len(self.data):
            return torch.empty(self.shape, dtype=dtype)
        data = bytearray(self.data) if self.data.readonly else self.data  # torch warns of these
        flat = torch.frombuffer(data, dtype=torch.uint8)
        if flat.data_ptr() % ITEM_BYTES[self.dtype]:  # behind a record of odd length
            flat = flat.clone()
        return flat.view(dtype).reshape(self.shape)

    def __repr__(self) -> str:
        return f"Blob({self.dtype} {list(self.shape)})"


@dataclass(repr=False)
class Record:
    """One sample at one stage. Treat it as a value: `replace` makes the next one.

    id      the sample's name through all stages
    attrs   prompt, seed, fps, sizes, latent space …; JSON
    log     the chain of history (vidgen.io.log)
    last    whether it ended its stream; the writer decides anew
    """

    kind: str
    id: str
    tensors: dict[str, Blob] = field(default_factory=dict)
    attrs: dict[str, JSON] = field(default_factory=dict)
    log: list[dict[str, JSON]] = field(default_factory=list)
    last: bool = False

    @classmethod
    def make(
        cls,
        kind: str,
        id: str,
        tensors: Mapping[str, ndarray | Tensor | Blob],
        attrs: Mapping[str, JSON] | None = None,
        log: Iterable[dict[str, JSON]] = (),
    ) -> Record:
        """A record of arrays, tensors or Blobs. UsageError for a bad kind, id or tensor name, or
        attrs that JSON can't say."""
        if kind not in KINDS:
            raise UsageError(f"`{kind}` is no kind of record", next=f"one of: {', '.join(KINDS)}")
        if not ID.fullmatch(id):
            raise UsageError(
                f"`{id}` can't be a record's id",
                next="1 to 128 of: letters, digits, dot, underscore, hyphen",
            )
        for name in tensors:
            if not name or name == "__metadata__" or any(c < " " for c in name):
                raise UsageError(f"record `{id}`: {name!r} can't be a tensor's name")
        blobs = {name: Blob.of(x) for name, x in tensors.items()}
        return cls(kind, id, blobs, _as_json(id, attrs or {}), _as_json(id, link((), *log)))

    def torch(self, name: str) -> Tensor:
        """The tensor of that name. InputError if the record lacks it."""
        return self[name].torch()

    def numpy(self, name: str) -> ndarray:
        """The tensor of that name as a read-only array. InputError if the record lacks it."""
        return self[name].numpy()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Blob:
        if name not in self.tensors:
            raise InputError(
                f"record `{self.id}` ({self.kind}) has no tensor `{name}`",
                why=f"it has: {', '.join(sorted(self.tensors)) or 'none'}",
                next="vidgen inspect shows what each record holds",
            )
        return self.tensors[name]

    @property
    def digest(self) -> str:
        """The digest of the tensors: equal for equal names, dtypes, shapes and bytes."""
        return record_digest(self.tensors)

    def replace(
        self,
        *,
        kind: str | None = None,
        id: str | None = None,
        tensors: Mapping[str, ndarray | Tensor | Blob] | None = None,
        drop: Iterable[str] = (),
        attrs: Mapping[str, JSON] | None = None,
        entry: dict[str, JSON] | None = None,
    ) -> Record:
        """The next record: old tensors without those that `drop` names (`text.*` patterns too),
        new ones and attrs merged over the old, the entry at the end of the log."""
        patterns = tuple(drop)
        kept = {
            name: blob
            for name, blob in self.tensors.items()
            if not any(fnmatchcase(name, p) for p in patterns)
        }
        record = Record.make(
            kind or self.kind, id or self.id, {**kept, **(tensors or {})},
            {**self.attrs, **(attrs or {})},
        )  # fmt: skip
        new = () if entry is None else (_as_json(record.id, entry),)
        record.log, record.last = link(self.log, *new), self.last
        return record

    def check_values(self) -> None:
        """VidgenError if a tensor that must be finite is not (which ones: `checks.FINITE`)."""
        for name, blob in self.tensors.items():
            if bad := bad_value(name, blob):
                raise VidgenError(
                    f"record `{self.id}`: tensor `{name}` holds {bad[1]}",
                    why="the step that made it diverged or overflowed",
                    next="try --dtype fp32, or a lower guidance scale or learning rate",
                )

    def pack(self, *, last: bool = True, digest: str | None = None) -> tuple[bytes, list[Blob]]:
        """The record as a safetensors image: header, and the tensors in the order of their data.
        The digest is computed unless given."""
        slots = place_tensors({n: (b.dtype, b.shape) for n, b in self.tensors.items()})
        header = pack_header(slots, {"vidgen": self.metadata(last=last, digest=digest)})
        return header, [self.tensors[s.name] for s in slots]

    def metadata(self, *, last: bool, digest: str | None = None) -> str:
        """The one string under the metadata key `vidgen`."""
        value = {
            "schema": SCHEMA, "kind": self.kind, "id": self.id, "attrs": self.attrs,
            "digest": digest or self.digest, "last": last, "log": self.log,
        }  # fmt: skip
        return canonical_json(value).decode("utf-8")

    def __repr__(self) -> str:
        """What `vidgen inspect` prints: a line for the record, one for each tensor, its attrs and
        the steps that made it."""
        size = sum(b.nbytes for b in self.tensors.values())
        end = "  last" if self.last else ""
        lines = [f"{self.id}  {self.kind}  {human_bytes(size)}{end}"]
        width = max(map(len, self.tensors), default=0)
        for name, blob in sorted(self.tensors.items()):
            shape = " ".join(map(str, blob.shape)) or "scalar"
            lines.append(f"  {name:<{width}}  {blob.dtype:<4}  {shape}  {human_bytes(blob.nbytes)}")
        for key, value in sorted(self.attrs.items()):
            text = value if isinstance(value, str) else canonical_json(value).decode("utf-8")
            lines.append(f"  {key}: {text if len(text) <= 200 else text[:199] + '…'}")
        if self.log:
            from vidgen.io.log import outline  # which knows records

            lines += [f"  {line}" for line in outline(self.log)]
        return "\n".join(lines)


def unpack(
    tensors: dict[str, Blob], metadata: Mapping[str, str], place: Place, *,
    stem: str, verify: bool, offsets: Mapping[str, int],
) -> Record:  # fmt: skip
    """The record of the tensors and metadata that were read.

    A safetensors image without our metadata becomes a whole stream of one `features` record named
    `stem`, its own metadata as attrs. With `verify`, the digest and the values are checked;
    `offsets` says, for errors, where each tensor begins.
    """
    if "vidgen" not in metadata:
        record = Record("features", stem or "record", tensors, dict(metadata), last=True)
        digest = None
    else:
        meta = _checked_metadata(metadata["vidgen"], place)
        record = Record(meta["kind"], meta["id"], tensors, meta["attrs"], meta["log"], meta["last"])
        digest = meta["digest"]
    if verify:
        _verify(record, digest, place, offsets)
    return record


def _verify(record: Record, digest: str | None, place: Place, offsets: Mapping[str, int]) -> None:
    if digest is not None and digest != record.digest:
        raise place.fault(
            f"the tensors of `{record.id}` are not those that were written (digest mismatch)",
            min(offsets.values(), default=0),
            why="bytes were changed after it was made, by a bad disk, a bad copy or by hand",
        )
    for name, blob in record.tensors.items():
        if bad := bad_value(name, blob):
            at, words = bad
            what = f"tensor `{name}` of `{record.id}` holds {words}"
            raise place.fault(what, offsets.get(name, 0) + at)


_META_TYPES = {
    "kind": (str, "string"), "id": (str, "string"), "attrs": (dict, "object"),
    "digest": (str, "string"), "last": (bool, "boolean"), "log": (list, "list"),
}  # fmt: skip


def _checked_metadata(text: str, place: Place) -> dict[str, JSON]:
    """The object under the key `vidgen`, every member of the right type."""
    meta = parse_json(text.encode("utf-8"), place, 8, "the metadata `vidgen`")
    if not isinstance(meta, dict) or not isinstance(meta.get("schema"), str):
        raise place.fault("the metadata `vidgen` is not an object with a schema", 8)
    if meta["schema"] != SCHEMA:
        raise place.fault(
            f"its metadata follows {short(meta['schema'])}, this vidgen reads `{SCHEMA}`",
            8,
            next="read it with the vidgen that wrote it, or a newer one",
        )
    for key, (kind, name) in _META_TYPES.items():
        if not isinstance(meta.get(key), kind):
            raise place.fault(f"its metadata has no {name} `{key}`", 8)
    if meta["kind"] not in KINDS:
        raise place.fault(
            f"{short(meta['kind'])} is no kind of record", 8, why=f"known: {', '.join(KINDS)}"
        )
    if not ID.fullmatch(meta["id"]):
        raise place.fault(f"{short(meta['id'])} can't be a record's id", 8)
    if not all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in meta["log"]):
        raise place.fault(f"the log of `{meta['id']}` is not a list of entries with ids", 8)
    return meta


def _as_json(id: str, value: Any) -> Any:
    """The value as it will be read back: tuples are lists, keys are strings, numbers Python's. So
    one process sees what the next in a pipe would."""
    import json

    try:
        return json.loads(canonical_json(value))
    except (TypeError, ValueError) as e:
        raise UsageError(f"record `{id}`: its attrs or log can't be written as JSON: {e}") from None


def human_bytes(n: int) -> str:
    """Decimal units: 950 B, 6.4 kB, 97.0 MB."""
    if n < 1000:
        return f"{n} B"
    size, units = n / 1000, ["TB", "GB", "MB", "kB"]
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.1f} {units[-1]}"
