"""The text of a model card: Markdown from facts. What no data can give is written here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vidgen.cli.models_card import Pictures, Run

USE = """\
To see a whole text-to-video system at work, and to take it apart: each stage is a command, each
part small enough to train again at home. Its clips are toys of a toy world. It is no model of the
real one, and says nothing of people, places or events."""

LICENSE = """\
Apache-2.0, as the rest of the package. Nothing but rendered clips and their captions went into
training, all of them made by `vidgen world`."""

GOOD = 0.95  # a factor that is right less often is named among the limits
TIMES = 6  # evaluations in a run's table: first, last, and some between
KINDS = 8  # of confusions


def markdown(
    model: Mapping[str, Any],
    reports: Sequence[tuple[str, Mapping[str, Any]]],
    runs: Sequence[Run],
    pictures: Pictures,
) -> str:
    """The card. The same facts give the same bytes. `reports`: names and what they say; the first
    is the one whose failures and limits are told."""
    (_, report), *others = reports
    sections = [
        ("Intended use", [USE]),
        ("Parts", _parts(model)),
        ("What it knows", _knows([one for _, one in reports])),
        ("How it was trained", _training(runs, pictures.curves)),
        ("How often it is right", _accuracy(report)),
        *((f"How often it is right: `{_cell(name)}`", _accuracy(one)) for name, one in others),
        ("Combinations never trained on", _unseen(report)),
        ("Diversity", _diversity(report)),
        ("What is taken for what", _confusions(report)),
        ("Failures", _failures(report, pictures.failures)),
        ("Limits", _limits(model, report)),
        ("License", [LICENSE]),
    ]
    blocks = [f"# Model card: {_cell(model['name'])}", _makes(model)]
    for title, text in sections:
        if body := list(text):
            blocks += [f"## {title}", *body]
    return "\n\n".join(blocks) + "\n"


# Component → what it does after the keyframes.
CASCADE = {
    "interpolation": "three frames between any two of them",
    "upsampler": "sides twice as long",
}


# --- what it is -----------------------------------------------------------------------------------


def _makes(model: Mapping[str, Any]) -> str:
    g = model["geometry"]
    if g is None:
        return "Parts of a model: it makes no clips of its own."
    there = {c["name"] for c in model["components"]}
    more = [words for name, words in CASCADE.items() if name in there]
    after = f" Then {' and '.join(more)}." if more else ""
    return (
        f"{g['num_frames']} keyframes, {1 / g['fps']:g} s apart, of {g['width']} × {g['height']}"
        f" pixels, from a sentence about the procedural world (`vidgen world`).{after}"
    )


def _parts(model: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (f"`{c['name']}`", c["class"], _count(c["parameters"]), _size(c["bytes"]),
         ", ".join(c["dtypes"]) or "–", f"`{c['sha256'][:12]}`" if c["sha256"] else "–")
        for c in model["components"]
    ]  # fmt: skip
    whole = sum(c["parameters"] or 0 for c in model["components"])
    rows.append(("all", "", _count(whole), _size(sum(c["bytes"] for c in model["components"])),
                 "", ""))  # fmt: skip
    yield _table(("part", "class", "parameters", "size", "numbers", "SHA-256"), rows, "ll>>ll")
    facts = [("latent space", model["latent_space"]), ("text encoder", model["text_encoder"])]
    lines = [f"- {what}: `{name}`" for what, name in facts if name]
    if sampler := model["sampler"]:
        said = ", ".join(f"{key} {value}" for key, value in sorted(sampler.items()))
        lines.append(f"- sampled, unless you say otherwise, with {said}")
    if lines:
        yield "\n".join(lines)


def _knows(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The words of the widest level of the world on which it was judged."""
    from vidgen.world.vocabulary import BASIC, FULL

    judged = {str(report["level"]) for report in reports}
    for level, words in (("full", FULL), ("basic", BASIC)):
        if level in judged:
            lines = [f"- {factor}: {', '.join(values)}" for factor, values in words.items()]
            yield "\n".join([f"The {level} world, and its synonyms:", "", *lines])
            return


# --- training -------------------------------------------------------------------------------------


def _training(runs: Sequence[Run], curves: Sequence[str]) -> Iterator[str]:
    if runs:
        head = ("run", "task", "samples", "a step", "minutes", "loss, first", "loss, last",
                "optimizer", "numbers", "device")  # fmt: skip
        rows: list[tuple[Any, ...]] = [
            (f"`{_cell(run.name)}`", run.recipe["task"], f"{run.samples:,}",
             run.recipe.get("batch_size", "–"), f"{run.seconds / 60:.1f}",
             _number(run.steps[0]["loss"]), _number(run.steps[-1]["loss"]),
             _optimizer(run.recipe), run.recipe.get("dtype", "–"), run.device or "–")
            for run in runs
        ]  # fmt: skip
        rows = [row if any(r[-1] != "–" for r in rows) else row[:-1] for row in rows]
        yield _table(head[: len(rows[0])], rows, "ll>>>>>lll"[: len(rows[0])])
    for run in runs:
        if run.evals:
            yield _measures(run)
    for path in curves:
        yield f"![training]({_link(path)})"


def _optimizer(recipe: Mapping[str, Any]) -> str:
    optim = recipe.get("optim")
    return str(optim.get("name", "–")) if isinstance(optim, Mapping) else "–"


def _measures(run: Run) -> str:
    """Measures down, moments across."""
    moments = spaced(run.evals, TIMES)
    names = [
        key for key in dict.fromkeys(k for row in moments for k in row) if key.startswith("eval.")
    ]
    head = (f"`{_cell(run.name)}`, after samples", *(f"{row['samples']:,}" for row in moments))
    rows = [
        (name.removeprefix("eval."), *(_number(row.get(name)) for row in moments)) for name in names
    ]
    return _table(head, rows, "l" + ">" * len(moments))


def spaced(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, the first and the last among them, at even distances."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


# --- what was measured ----------------------------------------------------------------------------


def _accuracy(report: Mapping[str, Any]) -> Iterator[str]:
    judge = report["judge"]
    yield (
        f"{report['clips']:,} clips of the {report['level']} world, looked at by the judge"
        f" `{_cell(judge['name'])}` (`{judge['sha256'][:12]}`), which sees pixels alone; intervals"
        " of 95 %. The ceiling is what it says of rendered clips, the floor what clips score"
        " against each other's prompts."
    )
    ceiling, floor = report["ceiling"] or {}, report["floor"] or {}
    rows = [
        (name, _percent(share), _interval(share), f"{share['of']:,}",
         _percent(ceiling.get(name)), _percent(floor.get(name)))
        for name, share in report["scores"].items()
    ]  # fmt: skip
    yield _table(("factor", "right", "interval", "of", "ceiling", "floor"), rows, "l>>>>>")


def _unseen(report: Mapping[str, Any]) -> Iterator[str]:
    unseen, seen = report["unseen"], report["seen"] or {}
    if not unseen:
        return
    rows = [
        (name, _percent(share), _interval(share), f"{share['of']:,}",
         _percent(seen.get(name)), _interval(seen.get(name)), _of(seen.get(name)))
        for name, share in unseen.items()
    ]  # fmt: skip
    head = ("factor", "never trained on", "interval", "of", "others", "interval", "of")
    yield _table(head, rows, "l>>>>>>")


def _diversity(report: Mapping[str, Any]) -> Iterator[str]:
    if places := report["places"]:
        yield (
            f"In {places['clips']:,} clips of {places['prompts']:,} prompts the object takes"
            f" {places['places']:,} different places, counted prompt by prompt: "
            f"{100 * places['share']:.1f} % of what there could be."
        )


def _confusions(report: Mapping[str, Any]) -> Iterator[str]:
    found = [
        (count, sum(counts.values()), factor, asked, seen)
        for factor, by in report["confusion"].items()
        for asked, counts in by.items()
        for seen, count in counts.items()
        if asked != seen
    ]
    found.sort(key=lambda row: (-row[0], row[1], *row[2:]))
    if not found:
        return
    rows = [
        (factor, asked, seen, f"{count:,}", f"{of:,}")
        for count, of, factor, asked, seen in found[:KINDS]
    ]
    yield _table(("factor", "asked", "seen", "times", "of"), rows, "lll>>")
    if len(found) > KINDS:
        yield f"And {len(found) - KINDS} kinds more, none of them commoner."


def _failures(report: Mapping[str, Any], picture: str | None) -> Iterator[str]:
    wrong = len(report["wrong"])
    if picture:
        yield f"![clips that are wrong, each with its prompt and what was seen]({_link(picture)})"
    yield f"Something is wrong in {wrong:,} of {report['clips']:,} clips."


# --- limits ---------------------------------------------------------------------------------------


def _limits(model: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    scores = report["scores"]
    weak = {n: s for n, s in scores.items() if s["high"] < GOOD}
    open_ = {n: s for n, s in scores.items() if s["low"] < GOOD <= s["high"]}
    lines = []
    if weak:
        said = ", ".join(f"{name} ({_percent(s)})" for name, s in weak.items())
        lines.append(f"Intervals that lie below {100 * GOOD:g} %: {said}.")
    if open_:
        said = ", ".join(f"{name} ({_interval(s)} %)" for name, s in open_.items())
        lines.append(f"Intervals across {100 * GOOD:g} %, too few clips to tell: {said}.")
    if not weak and not open_:
        lines.append(f"No interval reaches below {100 * GOOD:g} %.")
    worse = [
        name for name, s in (report["unseen"] or {}).items()
        if name in (report["seen"] or {}) and s["high"] < report["seen"][name]["low"]
    ]  # fmt: skip
    if worse:
        lines.append(
            f"On combinations never trained on, worse, with intervals apart: {', '.join(worse)}."
        )
    if ceiling := (report["ceiling"] or {}).get("all"):
        lines.append(
            f"The judge itself is right about all in {_percent(ceiling)} of rendered clips; what"
            " is above that can't be measured."
        )
    lines.append("The world's words are all it knows; others are named in a warning.")
    if g := model["geometry"]:
        lines.append(
            f"All accuracies are of keyframes as they come from the transformer: {g['width']} ×"
            f" {g['height']} pixels, {g['num_frames']} frames, {g['fps']:g} a second. What follows"
            " can't mend them."
        )
    yield "\n".join(f"- {line}" for line in lines)


# --- Markdown -------------------------------------------------------------------------------------


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]], align: str) -> str:
    """`align`: a letter a column, `>` to the right."""
    rule = ["--:" if a == ">" else "---" for a in align]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (head, rule, *rows))


def _cell(value: Any) -> str:
    """Text that stays in its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _link(path: str) -> str:
    """A path that Markdown takes for one."""
    from urllib.parse import quote

    return quote(path)


def _count(parameters: int | None) -> str:
    return f"{parameters:,}" if parameters is not None else "–"


def _size(count: int) -> str:
    from vidgen.io.record import human_bytes

    return human_bytes(count)


def _number(x: Any) -> str:
    """Four digits are enough."""
    return f"{x:.4g}" if isinstance(x, int | float) else "–"


def _percent(share: Mapping[str, Any] | None) -> str:
    return f"{100 * share['share']:.1f} %" if share else "–"


def _interval(share: Mapping[str, Any] | None) -> str:
    return f"{100 * share['low']:.1f} – {100 * share['high']:.1f}" if share else "–"


def _of(share: Mapping[str, Any] | None) -> str:
    return f"{share['of']:,}" if share else "–"
