"""The parts of the trainer, each alone."""

from __future__ import annotations

import itertools
import json
import math
import threading

import pytest
import torch
from PIL import Image
from tiny_task import TinyTask
from torch import nn

from vidgen.errors import UsageError
from vidgen.train.ema import Ema
from vidgen.train.metrics import Budget, Journal, Window, read_metrics
from vidgen.train.optim import Optimizer, rate
from vidgen.train.plot import linear_ticks, log_ticks, plot_loss
from vidgen.train.prefetch import Prefetch
from vidgen.train.recipe import Optim, Schedule
from vidgen.train.task import generator, make_task, share

CPU = torch.device("cpu")


# --- optimizer -----------------------------------------------------------------------------


def test_rate_warms_up_stays_and_decays():
    schedule = Schedule(warmup_steps=10, decay_fraction=0.4, final=0.1)
    assert rate(schedule, 0, 0.0) == pytest.approx(0.1)
    assert rate(schedule, 4, 0.0) == pytest.approx(0.5)
    assert rate(schedule, 50, 0.5) == rate(schedule, 60, 0.6) == 1.0
    assert rate(schedule, 80, 0.8) == pytest.approx(0.55)
    assert rate(schedule, 100, 1.0) == rate(schedule, 120, 1.2) == pytest.approx(0.1)
    assert rate(Schedule(warmup_steps=0, decay_fraction=0), 0, 1.0) == 1.0


def test_muon_takes_the_matrices_of_blocks_only(recipe):
    modules = TinyTask(recipe()).build()
    optimizer = Optimizer(modules, recipe().optim)
    assert optimizer.muon_names == [
        f"net.blocks.{i}.{j}.weight" for i, j in itertools.product((0, 1), (1, 4))
    ]
    assert len(optimizer.parameters) == len(list(modules["net"].parameters()))
    fewer = Optimizer(modules, Optim(muon_exclude=("*.4.weight",)))
    assert fewer.muon_names == ["net.blocks.0.1.weight", "net.blocks.1.1.weight"]
    with pytest.raises(UsageError, match="muon_match matches no linear layer: layers"):
        Optimizer(modules, Optim(muon_match=("layers.*",)))
    assert Optimizer(modules, Optim(name="adamw")).muon_names == []
    other = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4), nn.Embedding(4, 4)])})
    other["blocks"][0].register_parameter("table", nn.Parameter(torch.zeros(6)))
    assert Optimizer({"net": other}, Optim()).muon_names == ["net.blocks.0.weight"]


def test_muon_for_kernels_is_torchs_muon_on_the_flattened_kernel():
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(6, 24, 3, bias=False), nn.Linear(54, 24, bias=False)
    linear.weight.data.copy_(conv.weight.data.flatten(1))
    ours = Optimizer({"net": conv}, Optim(muon_kernels=("net.weight",), muon_lr=0.1))
    theirs = torch.optim.Muon(linear.parameters(), lr=0.1, momentum=0.95, weight_decay=0.0)
    for _ in range(4):
        gradient = torch.randn(24, 54)
        conv.weight.grad = gradient.view_as(conv.weight).clone()
        linear.weight.grad = gradient.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(conv.weight.flatten(1), linear.weight, atol=2e-3, rtol=0)


def test_muon_step_is_orthogonal_scaled_and_decayed():
    """What the recipe's numbers mean: W ← (1 − lr·wd) W − lr·sqrt(max(1, rows/columns))·O."""
    torch.manual_seed(0)
    net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(8, 32, bias=False)])})
    p = net["blocks"][0].weight
    before, p.grad = p.detach().clone(), torch.randn(32, 8)
    Optimizer({"net": net}, Optim(muon_lr=0.5, muon_weight_decay=0.1)).step()
    update = (before * (1 - 0.5 * 0.1) - p.detach()) / (0.5 * math.sqrt(32 / 8))
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.6 and singular.max() < 1.3


def test_lamb_by_hand():
    """Two steps of one tensor, from the formula; a tensor of zeros has a ratio of 1."""
    net = nn.ParameterDict({"w": torch.tensor([3.0, 4.0]), "gain": torch.zeros(2)})
    optimizer = Optimizer({"net": net}, Optim(name="lamb", lr=0.1, weight_decay=0.01, eps=1e-6))
    w, m, v = torch.tensor([3.0, 4.0]), torch.zeros(2), torch.zeros(2)
    for gradient in (torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5])):
        net["w"].grad, net["gain"].grad = gradient.clone(), torch.ones(2)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        u = m / (v.sqrt() + 1e-6) + 0.01 * w
        w = w - 0.1 * min(float(w.norm()), 10.0) / u.norm() * u
    torch.testing.assert_close(net["w"].detach(), w)
    assert float(net["gain"].detach()[0]) == pytest.approx(-0.1 - 0.1 * 0.1, abs=1e-5)
    assert sorted(optimizer.state()) == [f"net.{k}/exp_avg{s}" for k in ("gain", "w")
                                         for s in ("", "_sq")]  # fmt: skip


def test_lambs_weight_norm_is_cut_at_ten():
    net = nn.ParameterDict({"w": torch.full((4,), 50.0)})
    optimizer = Optimizer({"net": net}, Optim(name="lamb", lr=0.01))
    net["w"].grad = torch.ones(4)
    optimizer.step()
    assert float((50 - net["w"].detach()).norm()) == pytest.approx(0.01 * 10, rel=1e-4)


def test_optimizer_state_keeps_channels_last():
    """A kernel in channels-last order and its state from a file must not be walked differently."""

    def steps(optimizer, conv, n, seed):
        for i in range(n):
            g = torch.randn(conv.weight.shape, generator=generator(seed, i))
            conv.weight.grad = torch.empty_like(conv.weight).copy_(g)
            optimizer.step()

    torch.manual_seed(0)
    one = nn.Conv2d(4, 6, 3, bias=False).to(memory_format=torch.channels_last)
    two = nn.Conv2d(4, 6, 3, bias=False).to(memory_format=torch.channels_last)
    a = Optimizer({"net": one}, Optim(name="adamw"))
    steps(a, one, 3, seed=1)
    two.load_state_dict(one.state_dict())
    b = Optimizer({"net": two}, Optim(name="adamw"))
    b.load({k: v.contiguous() for k, v in a.state().items()})
    steps(a, one, 2, seed=2)
    steps(b, two, 2, seed=2)
    assert torch.equal(one.weight, two.weight)


# --- average -------------------------------------------------------------------------------


def test_ema_follows_its_formula_and_shares_frozen_modules(recipe):
    modules = TinyTask(recipe()).build()
    ema = Ema(modules, decay=0.4)
    assert ema.modules()["teacher"] is modules["teacher"]
    assert ema.modules()["net"] is not modules["net"]
    weight = modules["net"].final.weight
    expected = weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            weight.add_(1.0)
            modules["net"].calls += 1
        ema.update(modules, step)
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    averaged = ema.modules()["net"]
    torch.testing.assert_close(averaged.final.weight, expected)
    assert averaged.calls == 7 and not averaged.training
    assert not any(p.requires_grad for p in averaged.parameters())


# --- data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 3])
def test_prefetch_keeps_the_order(depth):
    with Prefetch(lambda step: {"n": torch.tensor(step)}, 5, CPU, depth) as batches:
        assert [int(batches.next()["n"]) for _ in range(6)] == [5, 6, 7, 8, 9, 10]
    assert not any(t.name == "prefetch" for t in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 2])
def test_prefetch_hands_errors_over(depth):
    def make(step):
        if step == 2:
            raise ValueError("no clip 2")
        return {}

    with Prefetch(make, 0, CPU, depth) as batches:
        batches.next(), batches.next()
        with pytest.raises(ValueError, match="no clip 2"):
            batches.next()


def test_generators_depend_on_every_part_of_the_key():
    keys = [(0, 1), (1, 0), (0, "1x"), (0, 1, 0), (0, "loss", 1), (11,), (1, 1)]
    draws = [torch.randn(4, generator=generator(*k)).tolist() for k in keys]
    assert len({tuple(d) for d in draws}) == len(keys)
    assert draws[0] == torch.randn(4, generator=generator(0, 1)).tolist()


def test_share_covers_the_batch_once():
    rows = [list(share(12, rank, 3)) for rank in range(3)]
    assert [*itertools.chain(*rows)] == list(range(12))
    with pytest.raises(UsageError, match="batch_size is 12, not divisible by 5 processes"):
        share(12, 0, 5)


def test_tasks_are_found_by_name(recipe):
    assert isinstance(make_task(recipe()), TinyTask)
    with pytest.raises(UsageError) as caught:
        make_task(recipe("task=keyframe"))
    assert caught.value.next == "did you mean `keyframes`"
    for missing in ("nowhere:Task", "tiny_task:Absent"):
        with pytest.raises(UsageError, match="cannot be loaded"):
            make_task(recipe(f"task={missing}"))


# --- metrics and plot ----------------------------------------------------------------------


def test_window_sees_one_bad_step():
    window = Window()
    window.add(4, loss=torch.tensor(1.0), grad_norm=torch.tensor(2.0))
    window.add(4, loss=torch.tensor(3.0), grad_norm=torch.tensor(4.0))
    assert window.means() == {"loss": 2.0, "grad_norm": 3.0} and window.finite()
    window.add(4, loss=torch.tensor(1.0), grad_norm=torch.tensor(math.inf))
    window.add(4, loss=torch.tensor(1.0), grad_norm=torch.tensor(1.0))
    assert not window.finite()
    window.clear()
    assert window.finite() and window.means() == {}


def test_budget_is_spent_by_the_first_of_steps_and_minutes():
    both = Budget(100, 1.0)
    assert both.used(50, 6.0) == 0.5 and both.used(10, 45.0) == 0.75
    assert both.eta_s(50, 6.0, steps_per_s=10) == 5.0
    assert both.eta_s(50, 58.0, steps_per_s=10) == 2.0
    assert Budget(None, 0.5).used(10**9, 15.0) == 0.5


def test_journal_drops_lines_after_the_resumed_step(tmp_path):
    events = []
    with Journal(tmp_path, None, quiet=False) as journal:
        journal.begin(0, "task: a\n")
        for step in (2, 4, 6):
            journal.write(step=step, loss=1 / step, bad=math.nan)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # a crash in the middle of a line
    with Journal(tmp_path, events.append, quiet=False) as journal:
        journal.begin(4, "task: a\n")
        journal.write(step=5, loss=0.123456789)
        journal.tell("step", step=1)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 5]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1] == {"step": 5, "loss": 0.123457}
    assert json.loads(lines[0])["bad"] is None
    assert events == [{"event": "step", "step": 1}]
    Journal(tmp_path / "other", events.append, quiet=True).begin(0, "")
    assert not (tmp_path / "other").exists()


def test_plot_is_a_readable_png(tmp_path):
    path = tmp_path / "loss.png"
    rows = [{"step": s, "loss": 2.0 / s + 0.01} for s in range(10, 3000, 10)]
    plot_loss(rows[:1], path)
    assert not path.exists()
    plot_loss([*rows, {"step": 500, "eval.loss": 0.3}, {"step": 501, "loss": None}], path)
    image = Image.open(path)
    assert image.size == (720, 400)
    colors = {color for _, color in image.convert("RGB").getcolors(1 << 16)}
    assert {(0x1F, 0x5F, 0xA8), (0xC8, 0x55, 0x2B)} <= colors  # the line and the dot
    plot_loss([{"step": s, "loss": 1.0} for s in (1, 2)], path)  # flat


def test_ticks_are_round():
    assert log_ticks(0.01, 3.0) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2])
    assert log_ticks(1.0, 2.0) == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
    assert linear_ticks(0, 3000) == [0, 500, 1000, 1500, 2000, 2500, 3000]
