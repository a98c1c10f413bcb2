"""`vidgen train`: the command line around the trainer, its events, and what signals do to it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from vidgen.cli import train
from vidgen.cli.console import Console
from vidgen.cli.failure import Terminated
from vidgen.cli.train import SCHEMAS, Talk
from vidgen.errors import TryAgain
from vidgen.train.recipe import Recipe, shipped_recipes

TRAIN_TESTS = Path(__file__).resolve().parent.parent / "train"
TINY = str(TRAIN_TESTS / "tiny.yaml")
EVENT = SCHEMAS["vidgen.train-event/1"]


@pytest.fixture(autouse=True)
def tiny_task(monkeypatch) -> None:
    """The recipe's task is importable, and runs on one thread."""
    monkeypatch.syspath_prepend(str(TRAIN_TESTS))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def metrics(out: str | Path) -> list[dict]:
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


def recipe_of(out: str | Path) -> dict:
    return yaml.safe_load((Path(out) / "recipe.yaml").read_text())


# --- what is run, and where -----------------------------------------------------------------------


def test_without_a_recipe_the_shipped_ones_are_listed(vidgen) -> None:
    ran = vidgen("train")
    assert (ran.code, ran.err) == (0, "")
    names, texts = zip(*(line.split("  ", 1) for line in ran.text.splitlines()), strict=True)
    assert [n.strip() for n in names] == shipped_recipes()
    assert all(t.strip() for t in texts)


def test_a_run_trains_says_so_and_exports(vidgen) -> None:
    ran = vidgen("train", TINY)
    assert (ran.code, ran.out) == (0, b"")
    first, *between, last = ran.err.splitlines()
    assert first.startswith("vidgen train: ") and first.endswith(" parameters on cpu")
    # A busy machine also says now and then how much time is left.
    evals = [line for line in between if not line.endswith(" left")]
    assert [line.split(":")[1] for line in evals] == [" step 5", " step 10"]
    assert last.startswith("vidgen train: done: 10 steps in ")
    assert (Path("runs/tiny/model")).is_dir() and metrics("runs/tiny")[-1]["step"] == 10


def test_out_set_preset_and_dtype_reach_the_run(vidgen) -> None:
    words = ("--preset", "wide", "--set", "optim.lr=1e-4", "--set", "log_every=1",
             "--dtype", "bf16", "--steps", "2", "--out", "a/b")  # fmt: skip
    assert vidgen("train", TINY, *words).code == 0
    made = recipe_of("a/b")
    assert made["model"]["width"] == 32 and made["optim"]["lr"] == 1e-4
    assert (made["log_every"], made["dtype"], made["steps"]) == (1, "bfloat16", 2)


def test_a_budget_on_the_command_line_replaces_the_recipes(vidgen) -> None:
    def budget(*words: str) -> tuple:
        found = yaml.safe_load(vidgen("train", TINY, "-n", *words).text)
        return found["steps"], found["minutes"]

    assert budget() == (10, None)
    assert budget("--minutes", "2.5") == (None, 2.5)
    assert budget("--minutes", "2.5", "--steps", "7") == (7, 2.5)
    assert budget("--steps", "7") == (7, None)


def test_steps_for_sampling_set_by_a_variable_do_not_shorten_training(vidgen, monkeypatch) -> None:
    monkeypatch.setenv("VIDGEN_STEPS", "1")
    assert yaml.safe_load(vidgen("train", TINY, "-n").text)["steps"] == 10


def test_dry_run_shows_recipe_networks_and_place_and_writes_nothing(vidgen, tmp_path) -> None:
    ran = vidgen("train", TINY, "--dry-run")
    assert ran.code == 0
    assert " parameters\n" in ran.text and "parameters, not trained" in ran.text
    assert ran.text.splitlines()[-1] == "# in runs/tiny, from the start"
    assert not (tmp_path / "runs").exists()


def test_a_longer_budget_goes_on_from_the_checkpoint(vidgen) -> None:
    assert vidgen("train", TINY, "--steps", "4", "--out", "a").code == 0
    ran = vidgen("train", TINY, "--steps", "6", "--out", "a", "--resume", "yes")
    assert ran.code == 0 and "going on from step 4" in ran.err
    assert [row["step"] for row in metrics("a") if "loss" in row] == [2, 4, 6]
    assert "going on from step-" in vidgen("train", TINY, "--out", "a", "-n").text


def test_export_alone_writes_the_model_again(vidgen) -> None:
    vidgen("train", TINY, "--steps", "2", "--out", "a")
    files = {p.name: p.read_bytes() for p in Path("a/model").rglob("*") if p.is_file()}
    for path in Path("a/model").rglob("*.*"):
        path.unlink()
    ran = vidgen("train", "--export", "--out", "a")
    assert (ran.code, ran.err) == (0, "vidgen train: exported a/model\n")
    assert {p.name: p.read_bytes() for p in Path("a/model").rglob("*") if p.is_file()} == files


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tinny",), "next: vidgen train tiny"),
        (("tiny", "--set", "optim.lrr=1"), "unknown key `optim.lrr`"),
        (("tiny", "--set", "optim.lr"), "override `optim.lr` is not key=value"),
        (("tiny", "--preset", "huge"), "no preset `huge`"),
        (("tiny", "--steps", "0"), "must be at least 1"),
        (("tiny", "--set", "steps=null"), "neither steps nor minutes is set"),
        (("tiny", "--device", "warp"), "--device warp: no such device"),
        (("tiny", "--resume", "yes"), "no checkpoint to resume from"),
        (("tiny", "--out", "file"), "file: is a file, not a folder"),
        (("tiny", "--out", "file/run"), "file: is a file, not a folder"),
        (("--export",), "--export of which run?"),
        (("--export", "--out", "nothing"), "nothing: no checkpoint there"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(vidgen, tmp_path, words, said) -> None:
    (tmp_path / "file").write_text("")
    ran = vidgen("train", *words)
    assert ran.code == 2 and said in ran.err
    assert {p.name for p in tmp_path.iterdir()} <= {"file", ".cache"}


def test_cuda_without_one_is_told(vidgen, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = vidgen("train", "tiny", "--device", "cuda")
    assert ran.code == 2 and "--device cuda: this torch sees no GPU" in ran.err


def test_a_mistake_in_the_recipe_is_told_without_torch(tmp_path) -> None:
    code = (
        "import sys; from vidgen.cli import app\n"
        "code = app.main(['train', 'tiny', '--set', 'optim.lrr=1'])\n"
        "sys.exit(10 * ('torch' in sys.modules) + code)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 2


def test_a_diverging_run_names_the_last_good_checkpoint(vidgen) -> None:
    ran = vidgen("train", TINY, "--set", "data.nan_at=6", "--set", "checkpoint_every_s=0")
    assert ran.code == 1
    what, why, after = ran.err.splitlines()[-3:]
    assert "step 7: loss is nan" in what and "diverged" in why
    assert "step-00000006" in after


# --- what is said ---------------------------------------------------------------------------------


def test_progress_json_gives_events_that_follow_the_schema(vidgen) -> None:
    ran = vidgen("train", TINY, "--progress", "json")
    rows = [json.loads(line) for line in ran.err.splitlines()]
    events = [row for row in rows if row["event"] == "train"]
    assert {e["what"] for e in events} >= {"start", "step", "eval", "checkpoint", "end"}
    for e in events:
        assert set(EVENT["required"]) <= set(e)
        assert e["what"] in EVENT["properties"]["what"]["enum"]
        extra = set(e) - set(EVENT["properties"])
        assert all(e[k] is None or isinstance(e[k], int | float) for k in extra)
    steps = [e for e in events if e["what"] == "step"]
    assert [e["step"] for e in steps] == [2, 4, 6, 8, 10]
    assert all({"loss", "samples_per_s", "eta_s", "used"} <= set(e) for e in steps)
    assert rows[-1]["event"] == "end" and rows[-1]["code"] == 0


def test_quiet_says_nothing_and_verbose_tells_of_checkpoints(vidgen) -> None:
    assert vidgen("train", TINY, "-q", "--out", "a").err == ""
    assert "saved b/checkpoints/step-00000010" in vidgen("train", TINY, "-v", "--out", "b").err


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def step(n: int) -> dict:
    return {"event": "step", "step": n, "loss": 0.25, "samples_per_s": 123.4, "eta_s": 90.0,
            "used": n / 100}  # fmt: skip


def test_plain_lines_come_now_and_then(tmp_path) -> None:
    clock, said = Clock(), io.StringIO()
    console = Console("train", progress="plain", stream=said, clock=clock)
    talk = Talk(console, Recipe("autoencoder", steps=100), clock=clock)
    for n in range(1, 31):
        clock.now = float(n)
        talk(step(n))
    lines = said.getvalue().splitlines()
    assert lines[0] == ("vidgen train: step 3: loss 0.25, 123 samples/s, 1 min 30 s left")
    assert [int(line.split()[3].rstrip(":")) for line in lines] == [3, 13, 23]


@pytest.mark.parametrize(
    ("budget", "counted"),
    [({"steps": 100}, (50, 100, "step")), ({"minutes": 2.0}, (60, 120, "second"))],
)
def test_a_bar_counts_what_the_budget_is_in(monkeypatch, budget, counted) -> None:
    console = Console("train", progress="bar", stream=io.StringIO())
    drawn = []
    monkeypatch.setattr(console, "step", lambda *a: drawn.append(a))
    Talk(console, Recipe("autoencoder", **budget))(step(50))
    assert drawn == [counted]


# --- signals --------------------------------------------------------------------------------------


def start(out: Path, events: Path) -> subprocess.Popen:
    """A run in another process that lasts until it is stopped; returns when it has begun to step.
    It tells its events to a file, so that it never waits for a reader."""
    words = ("--steps", "10000000", "--set", "eval_every=0", "--progress", "json")
    path = f"{TRAIN_TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with events.open("w") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "vidgen", "train", TINY, "--out", str(out), *words],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
    while '"what": "step"' not in events.read_text():
        assert child.poll() is None, events.read_text()
        time.sleep(0.02)
    return child


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on(vidgen, tmp_path, number, code) -> None:
    child = start(tmp_path / "a", tmp_path / "events")
    child.send_signal(number)
    assert child.wait(timeout=240) == code
    rows = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    (saved,) = [r["step"] for r in rows if r.get("what") == "checkpoint"]
    assert Path(f"a/checkpoints/step-{saved:08d}").is_dir() and not Path("a/model").exists()
    failed = next(r for r in rows if r["event"] == "error")
    assert failed["code"] == code and "run the same command again to go on" in failed["next"]
    assert rows[-1] == rows[-1] | {"event": "end", "code": code}

    more = ("--steps", str(saved + 4), "--set", "eval_every=0", "--out", "a")
    ran = vidgen("train", TINY, *more)
    assert ran.code == 0 and f"going on from step {saved}" in ran.err
    assert Path("a/model").is_dir() and metrics("a")[-1]["step"] == saved + 4


def test_sigterm_while_the_trainer_does_not_listen(tmp_path) -> None:
    """Before the first step there may be nothing to go on from; after the last there is."""
    talk = Talk(Console("train", progress="none"), Recipe("autoencoder"))
    with pytest.raises(Terminated), train._told_how_to_go_on(talk, tmp_path):
        raise Terminated
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    with pytest.raises(TryAgain), train._told_how_to_go_on(talk, tmp_path):
        raise Terminated
