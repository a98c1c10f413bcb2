"""Sampling ahead of decoding: order, errors, who waits for whom, and when it is done at all."""

import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from released_folders import folders

from vidgen.errors import InputError
from vidgen.stages import ahead as module
from vidgen.stages import needs
from vidgen.stages.ahead import SPARE, Aside, ahead, pays
from vidgen.stages.base import Compute, Silent
from vidgen.stages.needs import Needs
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder

CPU = torch.device("cpu")


class Heard(Silent):
    def __init__(self):
        self.steps, self.warnings = [], []

    def warn(self, text):
        self.warnings.append(text)

    def step(self, done, total, unit):
        self.steps.append(done)


def test_all_come_in_their_order_from_another_thread():
    threads = set()

    def make(notify):
        for i in range(20):
            threads.add(threading.current_thread())
            yield i

    assert list(ahead(make, CPU, Silent(), most=3)) == list(range(20))
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_some_are_made_before_they_are_asked_for_and_no_more():
    made = []

    def make(notify):
        for i in range(50):
            made.append(i)
            yield i

    taking = ahead(make, CPU, Silent(), most=4)
    assert made == []
    assert next(taking) == 0
    wait_for(lambda: len(made) == 5)  # the one that is used, and four
    time.sleep(0.05)
    assert len(made) == 5
    assert list(taking) == list(range(1, 50))


def test_an_error_comes_after_what_was_made_before_it():
    def make(notify):
        yield from range(3)
        raise InputError("a bad record")

    taking = ahead(make, CPU, Silent(), most=1)
    assert [next(taking) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="a bad record"):
        next(taking)


def test_who_stops_asking_waits_for_one_step():
    heard, threads = Heard(), threading.active_count()

    def make(notify):
        yield 0
        for i in range(1, 10_000):
            time.sleep(0.001)
            notify.step(i, 10_000, "step")
        yield 1

    taking = ahead(make, CPU, heard, most=2)
    assert next(taking) == 0
    wait_for(lambda: heard.steps)
    taking.close()
    assert threading.active_count() == threads
    told = len(heard.steps)
    assert told < 5_000
    time.sleep(0.05)
    assert len(heard.steps) == told


def test_an_interrupt_waits_for_nothing():
    """Of work that has no steps, such as reading weights."""
    done = threading.Event()

    def make(notify):
        done.wait(20)
        yield 0

    def interrupt():
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    began = time.monotonic()
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(ahead(make, CPU, Silent(), most=1))
    assert time.monotonic() - began < 10
    done.set()


def test_of_work_beside_other_work_only_warnings_are_told():
    heard = Heard()
    Aside(heard).step(1, 2, "frame")
    Aside(heard).warn("less memory")
    assert (heard.steps, heard.warnings) == ([], ["less memory"])


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return folders({"wan": "wan 2.1"}, tmp_path_factory)["wan"]


@pytest.fixture
def on_cuda(monkeypatch):
    """As if there were a GPU, with so many bytes free."""
    monkeypatch.setattr(Compute, "torch_device", lambda self: torch.device("cuda"))
    free = [2**40]
    monkeypatch.setattr(module, "free_bytes", lambda device: free[0])
    return free


def test_it_pays_for_several_batches_of_a_released_model(tiny_model, wan, on_cuda):
    compute, folder = Compute(dtype="fp32", batch_size=2), ModelFolder(wan)
    assert pays(folder, Choices(), 3, compute)
    assert not pays(folder, Choices(), 2, compute)  # one batch: nothing comes after it
    assert not pays(folder, Choices(), 65, compute)  # the text encoder comes back
    for settings in ({"offload": "model"}, {"attention": "math"}, {"compile": True}):
        assert not pays(folder, Choices(), 3, replace(compute, **settings))
    assert not pays(ModelFolder(tiny_model), Choices(), 3, compute)


@pytest.mark.parametrize("part", ["weights", "sampling", "decoder", "decoding"])
def test_it_pays_where_there_is_memory_for_both(wan, on_cuda, monkeypatch, part):
    """Every part counts: one byte too much of any is too much."""
    parts = dict.fromkeys(("weights", "sampling", "decoder", "decoding"), 10**6)

    class Vae:
        def parameters(self):
            yield torch.empty(parts["decoder"] // 4, device="meta")

    system = ModelFolder(wan).released
    monkeypatch.setattr(system, "build_autoencoder", lambda folder: Vae())
    monkeypatch.setattr(module, "weight_bytes", lambda *_: parts["weights"])
    monkeypatch.setattr(needs, "sampling_peak", lambda *_: parts["sampling"])
    monkeypatch.setattr(needs, "decoding", lambda *_: Needs(peak=parts["decoding"]))
    compute = Compute(dtype="fp32", batch_size=2)
    on_cuda[0] = int(sum(parts.values()) / SPARE) + 2
    assert pays(ModelFolder(wan), Choices(), 3, compute)
    parts[part] += 8
    assert not pays(ModelFolder(wan), Choices(), 3, compute)


def test_not_on_a_cpu(wan):
    assert not pays(ModelFolder(wan), Choices(), 10, Compute(device="cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_streams_of_a_gpu():
    device, streams = torch.device("cuda"), set()

    def make(notify):
        for i in range(4):
            streams.add(torch.cuda.current_stream(device).cuda_stream)
            yield (torch.full((64,), i, device=device) * 2).cpu()

    found = [int(x[0]) for x in ahead(make, device, Silent(), most=2)]
    assert found == [0, 2, 4, 6]
    assert torch.cuda.current_stream(device).cuda_stream not in streams


def wait_for(true):
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")
