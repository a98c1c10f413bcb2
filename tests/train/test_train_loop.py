"""Whole runs of the tiny task: budgets, resuming, stopping, failing, exporting."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from vidgen.errors import InputError, TryAgain, UsageError, VidgenError
from vidgen.train import checkpoint, loop
from vidgen.train.distributed import World
from vidgen.train.export import export
from vidgen.train.loop import train
from vidgen.train.metrics import Journal, read_metrics
from vidgen.train.recipe import section


def tensors(out, step):
    return load_file(out / "checkpoints" / f"step-{step:08d}" / "tensors.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def stop_at(step, number=signal.SIGTERM):
    """A progress callback that signals this process when `step` is logged."""

    def progress(event):
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), number)

    return progress


def test_a_run_leaves_everything_behind(recipe, tmp_path):
    events = []
    r = recipe("steps=60", "log_every=10", "eval_every=20", "sample_every=30")
    result = train(r, tmp_path / "run", device="cpu", progress=events.append)
    out = tmp_path / "run"
    assert (result.step, result.samples) == (60, 480)
    assert yaml.safe_load((out / "recipe.yaml").read_text()) == r.to_dict()
    rows = read_metrics(out / "metrics.jsonl")
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [10, 20, 30, 40, 50, 60]
    assert {"seconds", "samples", "lr", "grad_norm", "samples_per_s", "size"} <= logged[0].keys()
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]
    evaluated = [row for row in rows if "eval.loss" in row]
    assert [row["step"] for row in evaluated] == [20, 40, 60]
    assert evaluated[-1]["eval.loss"] == pytest.approx(result.measures["loss"], rel=1e-5)
    assert [p.name for p in sorted((out / "samples").iterdir())] == [
        "step-00000030.png", "step-00000060.png",
    ]  # fmt: skip
    assert (out / "loss.png").exists()
    exported = load_file(out / "model" / "model.safetensors")
    averaged = tensors(out, 60)
    assert torch.equal(exported["final.weight"], averaged["ema/net.final.weight"])
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start" and kinds[-1] == "end" and "checkpoint" in kinds
    step = next(event for event in events if event["event"] == "step")
    assert step["used"] == pytest.approx(1 / 6) and step["eta_s"] >= 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resume_equals_no_stop_to_the_bit(recipe, tmp_path, dtype):
    """10 steps = 5, SIGTERM, 5 more: weights, average, optimizer state; with dropout and noise."""
    r = recipe("log_every=5", "model.dropout=0.1", "data.noise=0.3", f"dtype={dtype}")
    train(r, tmp_path / "whole", device="cpu")
    with pytest.raises(TryAgain, match="stopped by SIGTERM at step 5, checkpoint saved"):
        train(r, tmp_path / "parts", device="cpu", progress=stop_at(5))
    assert checkpoint.checkpoints(tmp_path / "parts")[-1].name == "step-00000005"
    torch.manual_seed(99)  # what the process did meanwhile must not matter
    train(r, tmp_path / "parts", device="cpu")
    assert_same(tensors(tmp_path / "whole", 10), tensors(tmp_path / "parts", 10))
    digests = {
        checkpoint.read_state(checkpoint.checkpoints(tmp_path / run)[-1])["digest"]
        for run in ("whole", "parts")
    }
    assert len(digests) == 1
    pick = [{k: row.get(k) for k in ("step", "samples", "loss", "lr", "grad_norm", "eval.loss")}
            for row in read_metrics(tmp_path / "whole" / "metrics.jsonl")]  # fmt: skip
    again = [{k: row.get(k) for k in ("step", "samples", "loss", "lr", "grad_norm", "eval.loss")}
             for row in read_metrics(tmp_path / "parts" / "metrics.jsonl")]  # fmt: skip
    assert pick == again


def test_every_step_draws_anew(recipe, tmp_path):
    train(recipe("steps=6", "log_every=1"), tmp_path, device="cpu")
    draws = {row["draw"] for row in read_metrics(tmp_path / "metrics.jsonl") if "draw" in row}
    assert len(draws) == 6


def test_the_seed_and_prefetch(recipe, tmp_path):
    """Prefetching changes nothing; the seed changes everything."""
    for name, changes in {"a": [], "b": ["prefetch=0"], "c": ["seed=1"]}.items():
        train(recipe("steps=3", *changes), tmp_path / name, device="cpu")
    a, b, c = (tensors(tmp_path / name, 3) for name in "abc")
    assert_same(a, b)
    assert not torch.equal(a["model/net.final.weight"], c["model/net.final.weight"])


def test_sigint_saves_and_interrupts(recipe, tmp_path):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(recipe("steps=2"), tmp_path, device="cpu")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path, device="cpu", progress=stop_at(4, signal.SIGINT))
    assert checkpoint.checkpoints(tmp_path)[-1].name == "step-00000004"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_runs_outside_the_main_thread(recipe, tmp_path):
    """Where signals can't be caught, training works all the same."""
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(recipe("steps=2"), tmp_path, device="cpu"))
    )
    thread.start()
    thread.join(60)
    assert done and done[0].step == 2


def test_budget_may_grow_but_nothing_else_may_change(recipe, tmp_path):
    train(recipe("steps=4"), tmp_path, device="cpu")
    assert train(recipe("steps=8", "log_every=1"), tmp_path, device="cpu").step == 8
    with pytest.raises(UsageError) as caught:
        train(recipe("optim.lr=0.5", "model.width=32"), tmp_path, device="cpu")
    said = caught.value.what
    assert "optim.lr is 0.003 there, 0.5 here" in said
    assert "model.width is 16 there, 32 here" in said
    assert "steps" not in said


def test_a_run_from_before_a_setting_was_there_goes_on(recipe, tmp_path):
    """What a newer version has added to recipes has its default in an older run."""
    train(recipe("steps=4"), tmp_path, device="cpu")
    path = checkpoint.checkpoints(tmp_path)[-1] / "state.json"
    state = json.loads(path.read_text())
    del state["recipe"]["optim"]["muon_kernels"]
    path.write_text(json.dumps(state))
    assert train(recipe("steps=6"), tmp_path, device="cpu").step == 6


def test_one_process_a_folder(recipe, tmp_path):
    """The callback of a running training starts another in the same folder."""
    refused = []

    def progress(event):
        if event["event"] == "step" and not refused:
            with pytest.raises(UsageError, match="another process is training there"):
                train(recipe(), tmp_path, device="cpu")
            refused.append(True)

    train(recipe(), tmp_path, device="cpu", progress=progress)
    assert refused
    assert train(recipe(), tmp_path, device="cpu").step == 10  # it is free again


def test_resume_modes(recipe, tmp_path):
    with pytest.raises(UsageError, match="no checkpoint to resume from"):
        train(recipe(), tmp_path, device="cpu", resume="yes")
    train(recipe("steps=2"), tmp_path, device="cpu", resume="no")
    with pytest.raises(UsageError, match="holds a run already, at step-00000002"):
        train(recipe("steps=4"), tmp_path, device="cpu", resume="no")
    assert train(recipe("steps=4"), tmp_path, device="cpu", resume="yes").step == 4


def test_a_finished_run_run_again_changes_nothing(recipe, tmp_path):
    train(recipe("steps=3"), tmp_path, device="cpu")
    before = tensors(tmp_path, 3)
    assert train(recipe("steps=3"), tmp_path, device="cpu").step == 3
    assert_same(before, tensors(tmp_path, 3))


def test_nan_stops_and_the_last_good_checkpoint_stays(recipe, tmp_path):
    r = recipe("data.nan_at=6", "checkpoint_every_s=0", "log_every=4")
    with pytest.raises(VidgenError, match="step 7: loss is nan") as caught:
        train(r, tmp_path, device="cpu")
    assert "last good checkpoint" in caught.value.next and "step-00000006" in caught.value.next
    newest = checkpoint.checkpoints(tmp_path)[-1]
    assert newest.name == "step-00000006"
    assert all(t.isfinite().all() for t in checkpoint.read_tensors(newest).values())


def test_nan_is_noticed_at_once_and_never_saved(recipe, tmp_path):
    r = recipe("data.nan_at=6", "log_every=999")
    with pytest.raises(VidgenError, match="step 7: loss is nan") as caught:
        train(r, tmp_path / "one", device="cpu")
    assert caught.value.next == "try a lower optim.lr"
    # On a GPU nobody looks at every loss, but saving does.
    world = World(0, 1, torch.device("cpu"))
    with Journal(tmp_path / "two", None, quiet=False) as journal:
        run = loop.Run(r, world, journal, None, False)
        run.window.add(8, loss=torch.tensor(float("inf")), grad_norm=torch.tensor(1.0))
        with pytest.raises(VidgenError, match="loss is inf"):
            run.save()
    assert not checkpoint.checkpoints(tmp_path / "two")


def test_the_last_two_checkpoints_are_kept(recipe, tmp_path):
    train(recipe("steps=6", "checkpoint_every_s=0"), tmp_path, device="cpu")
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000005", "step-00000006"]


def test_a_failed_save_leaves_no_trace(recipe, tmp_path, monkeypatch):
    train(recipe("steps=2"), tmp_path, device="cpu")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(recipe("steps=4"), tmp_path, device="cpu")
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_damage_is_noticed(recipe, tmp_path):
    train(recipe("steps=2"), tmp_path, device="cpu")
    newest = checkpoint.checkpoints(tmp_path)[-1]
    path = newest / "tensors.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="damaged checkpoint") as caught:
        train(recipe("steps=4"), tmp_path, device="cpu")
    assert "digest" in caught.value.why
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged checkpoint"):
        train(recipe("steps=4"), tmp_path, device="cpu")
    path.write_bytes(whole)
    (newest / "state.json").write_text("{}")
    with pytest.raises(InputError, match="not a checkpoint"):
        train(recipe("steps=4"), tmp_path, device="cpu")


def test_what_a_task_depends_on_must_be_as_it_was(recipe, tmp_path, monkeypatch):
    """Nothing, of most tasks: then a checkpoint says what it said before tasks were asked."""
    net = {"frozen": torch.nn.Linear(2, 2).requires_grad_(False)}
    assert checkpoint.frozen_digest(net, []) == checkpoint.frozen_digest(net)
    given = ["a model"]
    monkeypatch.setattr(loop.Task, "depends_on", lambda self: given)
    train(recipe("steps=2"), tmp_path, device="cpu")
    assert train(recipe("steps=3"), tmp_path, device="cpu").step == 3
    given[0] = "another model"
    with pytest.raises(UsageError, match="other frozen networks"):
        train(recipe("steps=4"), tmp_path, device="cpu")


def test_other_code_or_other_frozen_networks_are_refused(recipe, tmp_path):
    train(recipe("steps=2"), tmp_path, device="cpu")
    path = checkpoint.checkpoints(tmp_path)[-1]
    state = checkpoint.read_state(path)
    (path / "state.json").write_text(json.dumps(state | {"frozen": "other"}))
    with pytest.raises(UsageError, match="other frozen networks"):
        train(recipe("steps=4"), tmp_path, device="cpu")
    fewer = tensors(tmp_path, 2)
    del fewer["model/net.final.bias"]
    save_file(fewer, path / "tensors.safetensors")
    (path / "state.json").write_text(json.dumps(state | {"digest": checkpoint._digest(fewer)}))
    with pytest.raises(InputError, match=r"`model/net.final.bias` isn't there"):
        train(recipe("steps=4"), tmp_path, device="cpu")


def test_a_budget_in_minutes_decays_by_the_clock(recipe, tmp_path, monkeypatch):
    """Half a second a step: twelve steps in 0.1 minutes, and the rate falls to the end."""
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.5 * next(clock))
    rates = []
    r = recipe("steps=", "minutes=0.1", "log_every=1", "eval_every=0")

    def progress(event):
        if event["event"] == "step":
            rates.append(event["lr"])

    result = train(r, tmp_path, device="cpu", progress=progress)
    assert result.elapsed_s >= 6.0 and 2 <= result.step <= 12
    assert rates[0] > 0 and rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.6 * max(rates)


def test_elapsed_time_survives_a_stop(recipe, tmp_path):
    with pytest.raises(TryAgain):
        train(recipe(), tmp_path, device="cpu", progress=stop_at(4))
    path = checkpoint.checkpoints(tmp_path)[-1]
    state = checkpoint.read_state(path)
    (path / "state.json").write_text(json.dumps(state | {"elapsed_s": 1000.0}))
    assert train(recipe(), tmp_path, device="cpu").elapsed_s >= 1000.0
    spent = train(recipe("steps=99", "minutes=1"), tmp_path, device="cpu")
    assert spent.step == 10  # the minute is long over


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler asks warnings of torch itself
def test_compile_changes_nothing_but_speed(recipe, tmp_path):
    counters = pytest.importorskip("torch._dynamo.utils").counters["stats"]
    before = counters["unique_graphs"]
    names = ("optim.name=adamw", "steps=5")
    train(recipe(*names), tmp_path / "plain", device="cpu")
    assert counters["unique_graphs"] == before
    train(recipe(*names), tmp_path / "compiled", device="cpu", compile=True)
    assert counters["unique_graphs"] > before
    plain, compiled = tensors(tmp_path / "plain", 5), tensors(tmp_path / "compiled", 5)
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], compiled[name], rtol=1e-4, atol=1e-5)


def test_export_of_a_checkpoint(recipe, tmp_path):
    with pytest.raises(UsageError, match="no checkpoint there"):
        export(tmp_path, tmp_path / "model")
    train(recipe("steps=2"), tmp_path / "run", device="cpu")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    export(tmp_path / "run", tmp_path / "model")
    names = sorted(p.name for p in (tmp_path / "model").iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert not list(tmp_path.glob(".model*"))


def test_a_recipe_without_a_device_or_weights(recipe, tmp_path):
    with pytest.raises(UsageError, match="no such device"):
        train(recipe(), tmp_path, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="sees no GPU"):
            train(recipe(), tmp_path, device="cuda")
    with pytest.raises(UsageError, match=r"unknown key `model\.widht`"):
        train(recipe("model.widht=3"), tmp_path, device="cpu")
    assert not (tmp_path / "checkpoints").exists()


def test_recipe_in_the_checkpoint_is_whole(recipe, tmp_path):
    train(recipe("steps=1"), tmp_path, device="cpu")
    state = checkpoint.read_state(checkpoint.checkpoints(tmp_path)[-1])
    again = section(loop.Recipe, state["recipe"], where="")
    assert again.to_dict() == recipe("steps=1").to_dict()
