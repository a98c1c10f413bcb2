"""`vidgen models add` and `remove`: names for models that lie elsewhere, here or on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from vidgen.cli.console import Console
from vidgen.cli.models_find import components
from vidgen.cli.options import option
from vidgen.cli.runner import print_text
from vidgen.errors import InputError, UsageError
from vidgen.io import hub, model_store, weights
from vidgen.io.model_store import INDEX
from vidgen.io.record import human_bytes

Download = Annotated[
    bool,
    option("--download", settable=False,
           help="add: fetch MODEL from the hub, as far as it is not here"),
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is to be added.

    files   place in a model folder → where the file lies, of those that are on this disk
    fetch   of the hub: those that are wanted of it
    shared  of the hub: those that are not wanted, since a stored model has the same bytes
    """

    name: str
    source: dict[str, str]
    files: dict[str, Path] = field(default_factory=dict)
    fetch: dict[str, hub.Remote] = field(default_factory=dict)
    shared: dict[str, Path] = field(default_factory=dict)


def add(
    console: Console, model: str, name: str | None, *, download: bool, force: bool, dry_run: bool
) -> None:
    """Name a folder, or a model of the hub."""
    plan = _of_hub(model, name, force) if download else _of_disk(model, name, force)
    if dry_run:
        print_text("\n".join(_words(plan)))
        return
    if download:
        plan = _fetched(plan, console)
    files = plan.files | plan.shared
    _require_whole(files, console)
    said = {file: digest for file, path in files.items() if (digest := hub.sha256_of_blob(path))}
    made = model_store.add(
        plan.name, files, plan.source, expected=said, force=force, step=counting(console, "read")
    )
    console.say(f"{plan.name}: {len(files)} files, {human_bytes(made.size)}, by reference")
    for line in _shared(plan):
        console.say(f"{plan.name}: {line}")


def remove(console: Console, name: str) -> None:
    """Forget a name, and say who needs its files."""
    users = model_store.users(name)
    model_store.remove(name)
    console.say(f"{name}: forgotten; its files stay where they are")
    for other in users:
        console.warn(f"the stored model `{other}` refers to files of `{name}`: keep them")


# --- what is to be added --------------------------------------------------------------------------


def _of_disk(model: str, name: str | None, force: bool) -> Plan:
    """A folder, or what the hub's cache has. UsageError where neither has it."""
    place = Path(model)
    if not place.is_dir():
        if not hub.is_repo(model):
            raise UsageError(
                f"{model}: no such folder",
                next="vidgen models add FOLDER, or OWNER/NAME of the hub",
            )
        found = hub.cached(model)
        if found is None:
            raise UsageError(
                f"{model}: neither a folder nor in the hub's cache",
                next=f"vidgen models add --download {model}",
            )
        place = found
    if stored := model_store.of_folder(place.resolve()):
        raise UsageError(
            f"{place}: is the stored model `{stored.name}`",
            next=f"vidgen models add {stored.source['folder']} --as NAME",
        )
    place = place.absolute()
    parts = _parts(place)
    source = {"folder": str(place)}
    called = place.resolve().name
    if snapshot := hub.snapshot_of(place):
        repo, commit = snapshot
        revision = (
            hub.split(model)[1] if hub.is_repo(model) and not Path(model).is_dir() else commit
        )
        source |= {"repo": repo, "revision": revision, "commit": commit}
        called = repo.rpartition("/")[2]
    name = _free(name or called, force)
    return Plan(name, source, model_store.local_files(place, parts))


def _of_hub(model: str, name: str | None, force: bool) -> Plan:
    """What of the hub's model is to be fetched. InputError for a model that isn't run here."""
    repo, revision = hub.split(model)
    name = _free(name or repo.rpartition("/")[2], force)
    commit, there = hub.listing(model)
    if INDEX not in there:
        raise InputError(
            f"{model}: has no {INDEX}, so it is no model folder as diffusers has it",
            why="weights in their makers' own layout are not read here",
            next=f"a model whose name ends in -Diffusers, if there is one of {repo}",
        )
    index = hub.download(model, commit, {INDEX: there[INDEX]})
    wanted = model_store.read_by_vidgen(there, _parts(index))
    known = model_store.known_weights()
    shared = {
        file: known[digest] for file in wanted
        if (digest := there[file].sha256) in known and digest and index not in known[digest].parents
        and weights.sha256(known[digest]) == digest  # no other bytes since it was added
    }  # fmt: skip
    fetch = {file: there[file] for file in wanted if file not in shared}
    source = {"folder": str(index), "repo": repo, "revision": revision, "commit": commit}
    return Plan(name, source, {}, fetch, shared)


def _free(name: str, force: bool) -> str:
    """The name, if it is none of a shipped model; UsageError for one that is taken."""
    from vidgen.systems.base import shipped_names

    model_store.require_free(name, force)
    if name in shipped_names():
        raise UsageError(f"`{name}` is the name of a shipped model", next="--as NAME")
    return name


def _parts(folder: Path) -> list[str]:
    """The components of a folder of a known class."""
    from vidgen.systems.base import ModelFolder

    if not (folder / INDEX).is_file():
        raise InputError(f"{folder}: a folder without {INDEX}, so not a model")
    found = ModelFolder(folder)
    found.require_known()
    return list(components(found))


def _words(plan: Plan) -> Iterable[str]:
    yield f"{plan.name}: {plan.source.get('repo') or plan.source['folder']}"
    if plan.fetch:
        text = f"{plan.source['repo']}@{plan.source['revision']}"
        size = hub.missing(text, plan.source["commit"], plan.fetch)
        yield f"  {len(plan.fetch)} files of the hub, {human_bytes(size)} to fetch"
    for file in sorted(plan.files):
        yield f"  {file}"
    yield from (f"  {line}" for line in _shared(plan))


def _shared(plan: Plan) -> list[str]:
    """What isn't fetched, a line a component."""
    places = {file.partition("/")[0]: path.parent for file, path in sorted(plan.shared.items())}
    return [f"weights of {part} are those of {place}" for part, place in places.items()]


# --- adding ---------------------------------------------------------------------------------------


def _fetched(plan: Plan, console: Console) -> Plan:
    """The plan, its files on this disk."""
    text = f"{plan.source['repo']}@{plan.source['revision']}"
    commit = plan.source["commit"]
    hub.require_room(hub.missing(text, commit, plan.fetch))
    place = hub.download(text, commit, plan.fetch, counting(console, "fetched"))
    if place.name != commit:
        raise InputError(f"{text}: was changed while it was fetched", next="the same command again")
    files = {file: place / file for file in plan.fetch}
    return Plan(plan.name, plan.source | {"folder": str(place)}, files, {}, plan.shared)


def counting(console: Console, word: str) -> model_store.Step:
    """Bytes as a bar of megabytes."""
    return lambda done, total: console.step(done // 10**6, max(total // 10**6, 1), f"MB {word}")


def _require_whole(files: Mapping[str, Path], console: Console) -> None:
    """InputError for a weight file that is cut, or a missing shard, or for components that are
    shared with a model that isn't here; a warning for components that the model has no files of,
    which other stages than their own do without."""
    from vidgen.io.weights import INDEX as SHARDS
    from vidgen.io.weights import require_whole, weight_map
    from vidgen.systems.base import ModelFolder

    there = {file.partition("/")[0] for file in files}
    folder = files[INDEX].parent
    own = [part for part in _parts(folder) if ModelFolder(folder).place(part).parent == folder]
    if absent := [part for part in own if part not in there]:
        console.warn(f"no files of {', '.join(absent)}: only stages that do without them will run")
    for file, path in files.items():
        if file.endswith(".safetensors"):
            require_whole(path)
        if file.endswith(SHARDS):
            part = file.partition("/")[0]
            shards = {f"{part}/{shard}" for shard in weight_map(path).values()}
            if lost := sorted(shards - files.keys()):
                raise InputError(
                    f"{path.parent}: shard {lost[0].partition('/')[2]} is missing,"
                    f" one of {len(shards)}",
                    next="fetch the model again",
                )
