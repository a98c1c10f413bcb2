"""Models of the Hugging Face hub: those in its cache on this disk, and, when asked, the net.

Everything here but `listing` and `download` stays on this machine. Where the cache lies, HF_HOME
and HF_HUB_CACHE say.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgen.errors import UsageError, VidgenError
from vidgen.io.model_store import INDEX
from vidgen.io.record import human_bytes

# As huggingface_hub takes them: NAME has at most 96 characters, no `--`, no `.git` behind.
_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
REPO = re.compile(
    r"(?!.*\.\.)(?![^@]*--)(?![^@]*\.git(?:@|$))(?=[^/]*/[^@]{1,96}(?:@|$))"
    rf"({_PART}/{_PART})(?:@([\w./-]+))?",
    re.ASCII,
)
MAIN = "main"  # the revision of a name without one
SHA256 = re.compile(r"[0-9a-f]{64}")

Step = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class Remote:
    """A file of the hub's."""

    bytes: int
    sha256: str | None  # of large ones only


def is_repo(text: str) -> bool:
    """Whether it is of the form OWNER/NAME[@REV]."""
    return REPO.fullmatch(text) is not None


def split(text: str) -> tuple[str, str]:
    """OWNER/NAME[@REV] → OWNER/NAME and REV. UsageError for anything else."""
    if not (match := REPO.fullmatch(text)):
        raise UsageError(
            f"`{text}` is no name of a model of the hub", next="OWNER/NAME, or OWNER/NAME@REVISION"
        )
    return match[1], match[2] or MAIN


def cached(text: str) -> Path | None:
    """The snapshot of OWNER/NAME[@REV] that is in the cache, if its index is."""
    from huggingface_hub import try_to_load_from_cache

    repo, revision = split(text)
    found = try_to_load_from_cache(repo, INDEX, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def snapshot_of(folder: Path) -> tuple[str, str] | None:
    """OWNER/NAME and commit of a folder that is a snapshot in a hub's cache, by its path."""
    snapshots, repo = folder.parent, folder.parent.parent
    if snapshots.name != "snapshots" or not repo.name.startswith("models--"):
        return None
    return repo.name.removeprefix("models--").replace("--", "/"), folder.name


def sha256_of_blob(path: Path) -> str | None:
    """The SHA-256 that the hub says of a file in its cache: large ones are named for it there."""
    name = path.resolve().name
    return name if path.is_symlink() and SHA256.fullmatch(name) else None


# --- the net --------------------------------------------------------------------------------------


def listing(text: str) -> tuple[str, dict[str, Remote]]:
    """The commit that OWNER/NAME[@REV] is now, and its files. Errors as `_told`."""
    from huggingface_hub import HfApi

    repo, revision = split(text)
    with _told(text):
        found = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    files = {
        file.rfilename: Remote(file.size or 0, file.lfs.sha256 if file.lfs else None)
        for file in found.siblings or ()
    }
    return str(found.sha), files


def missing(text: str, commit: str, files: Mapping[str, Remote]) -> int:
    """Bytes of those files of OWNER/NAME at this commit that the cache has not, or not whole."""
    return sum(files[file].bytes for file in _absent(text, commit, files))


def _absent(text: str, commit: str, files: Mapping[str, Remote]) -> list[str]:
    from huggingface_hub import try_to_load_from_cache

    repo, _ = split(text)
    return [
        file for file in files
        if not isinstance(try_to_load_from_cache(repo, file, revision=commit), str)
    ]  # fmt: skip


def download(
    text: str, commit: str, files: Mapping[str, Remote], step: Step = lambda done, total: None
) -> Path:
    """Fetch these files of OWNER/NAME[@REV], which is at that commit, into the cache, as far as
    they are not there, and return their snapshot. Errors as `_told`; VidgenError, too, while
    another process fetches the same."""
    from huggingface_hub import snapshot_download

    repo, revision = split(text)
    bar = _bar(step, missing(text, commit, files))
    with _told(text):
        for file in _absent(text, commit, files):
            if digest := files[file].sha256:
                _fetch_large(repo, commit, file, digest, files[file].bytes, bar)
        found = snapshot_download(
            repo, revision=revision, allow_patterns=list(files), tqdm_class=bar
        )
    return Path(found)


def _fetch_large(repo: str, commit: str, file: str, digest: str, size: int, bar: Any) -> None:
    """Fetch a file to where huggingface_hub looks for it, from where it was interrupted.

    Its own download begins such a file anew (huggingface_hub issue 4196), and these have
    gigabytes."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, folder, "blobs", digest)
    if blob.exists():  # of a file with the same bytes
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{digest}.vidgen-part")
    with part.open("r+b" if part.exists() else "x+b") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VidgenError(
                f"{repo}: another process fetches {file}", next="wait for it, then run this again"
            ) from None
        http_get(
            hf_hub_url(repo, file, revision=commit), f, resume_size=f.seek(0, os.SEEK_END),
            headers=build_hf_headers(), expected_size=size, tqdm_class=bar,
        )  # fmt: skip
        part.rename(blob)


def require_room(size: int) -> None:
    """VidgenError if the cache's disk has no room for so many bytes."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    if (free := shutil.disk_usage(place).free) < size:
        raise VidgenError(
            f"{human_bytes(size)} to download, and {human_bytes(free)} free in {place}",
            next="make room, or HF_HUB_CACHE=FOLDER names another place for the cache",
        )


def _bar(step: Step, size: int) -> Any:
    """What huggingface_hub takes for its progress bars. They tell of bytes written, all together,
    and are silent of the rest: bytes on the net, whose number nobody knows before, and a count of
    files."""
    from tqdm import tqdm

    done: list[int] = []  # of each bar

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            words = str(kwargs.get("desc"))
            self.counts = not words.startswith(("Downloading bytes", "Fetching"))
            self.place = len(done)
            done.append(0)
            super().__init__(*args, **kwargs | {"file": _Nowhere(), "disable": False})

        def display(self, *args: Any, **kwargs: Any) -> None:
            if self.counts and self.n:
                done[self.place] = int(self.n)
                step(min(sum(done), size), size)

    return Bar


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def _told(text: str) -> Iterator[None]:
    """Errors of huggingface_hub in our words: UsageError for a model or revision that isn't there,
    or while HF_HUB_OFFLINE is set; VidgenError for what may work another time."""
    from huggingface_hub import constants, errors, utils

    if constants.HF_HUB_OFFLINE:
        raise UsageError(
            "--download: HF_HUB_OFFLINE is set, so nothing is fetched",
            next=f"HF_HUB_OFFLINE=0 vidgen models add --download {text}",
        )
    utils.logging.set_verbosity_error()  # what matters of its warnings comes as an error
    try:
        yield
    except VidgenError:
        raise
    except errors.GatedRepoError as error:
        raise VidgenError(
            f"{text}: its makers give it to those who agreed to their terms",
            why=_line(error),
            next=f"agree at {constants.ENDPOINT}/{split(text)[0]}, and `hf auth login`",
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{text}: the hub has no such revision", next=split(text)[0]) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"{text}: the hub has no such model, or shows it only to some",
            next="`hf auth login`, if it is yours or shared with you",
        ) from None
    except Exception as error:  # of several HTTP libraries and others, which have nothing in common
        raise VidgenError(
            f"{text}: can't be fetched: {_line(error)}",
            why=f"asked was {constants.ENDPOINT}",
            next="the same command again goes on where it stopped",
        ) from error


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
