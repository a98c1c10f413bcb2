"""Blocks by turn: what a loop computes with, how much of it is there at one time, and what becomes
of a loop that is left early or of weights that can't be read."""

import threading
from functools import partial

import pytest
import torch
from torch import nn

from vidgen.nn.by_turn import ByTurn, Origin, put, tensors
from vidgen.nn.fp8 import LARGEST, to_fp8

CPU = torch.device("cpu")
DEPTH, WIDTH = 5, 6


def block(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH)).requires_grad_(
        False
    )


def made(dtype=torch.float32, *, as_is=False, change=None, reads=None):
    """Blocks without weights, and where those are."""
    blocks, origins = [], []
    for i in range(DEPTH):
        own = {name: x.data.to(dtype) for name, x in tensors(block(i)).items()}

        def read(i=i, own=own, name=""):
            if reads is not None:
                reads.append((i, name))
            return own[name]

        origins.append(
            {name: Origin(partial(read, name=name), as_is, torch.float32, change) for name in own}
        )
        empty = block(99)
        put(empty, {name: torch.full_like(x, torch.nan) for name, x in tensors(empty).items()})
        blocks.append(empty)
    return ByTurn(blocks, origins, CPU)


def through(blocks, x):
    for one in blocks:
        x = one(x)
    return x


@pytest.mark.parametrize("as_is", [True, False])
@pytest.mark.parametrize("depth", [1, 2, DEPTH])
def test_a_loop_computes_with_their_weights(as_is, depth, monkeypatch):
    monkeypatch.setattr("test_by_turn.DEPTH", depth)
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    blocks = made(as_is=as_is)
    for _ in range(3):
        assert through(blocks, x).equal(through(map(block, range(depth)), x))
    assert all(p.isnan().all() for p in blocks.parameters())  # away again


def test_a_weight_is_converted_and_changed_as_told():
    blocks = made(torch.bfloat16, change=lambda w: w + 1)
    for i, one in enumerate(blocks):
        for name, x in tensors(one).items():
            wanted = tensors(block(i))[name].bfloat16().float() + 1
            assert x.dtype == torch.float32 and x.equal(wanted)


def test_two_at_one_time():
    """The next one is read while one computes, and the one after that isn't."""
    reads = []
    blocks = made(reads=reads)
    for i, _ in enumerate(blocks):
        blocks._coming[1].result()  # the one that is on its way
        assert {of for of, _ in reads} == {i, (i + 1) % DEPTH}
        reads.clear()
        reads.append((((i + 1) % DEPTH), ""))
    rooms = {x.data_ptr() for room in blocks._rooms for x in room.values()}
    assert len(rooms) == 2 * len(tensors(block(0)))
    blocks.rest()
    assert not any(blocks._rooms)


def test_the_next_is_on_its_way_while_one_computes():
    """Reading waits for the loop's body, so that it can't have come before; and the other way."""
    computing, reading = threading.Event(), threading.Event()

    def read(i):
        if i == 1:
            assert computing.wait(20)
            reading.set()
        return torch.ones(WIDTH, WIDTH)

    blocks = [nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False) for _ in range(2)]
    origins = [{"weight": Origin(partial(read, i), False, torch.float32)} for i in range(2)]
    turns = iter(ByTurn(blocks, origins, CPU))
    next(turns)
    computing.set()
    assert reading.wait(20)
    turns.close()


def test_a_loop_that_is_left_early_is_no_matter():
    x, blocks = torch.ones(1, WIDTH), made()
    for i, _ in enumerate(blocks):
        if i == 2:
            break
    with pytest.raises(ZeroDivisionError):
        for _ in blocks:
            raise ZeroDivisionError
    assert through(blocks, x).equal(through(map(block, range(DEPTH)), x))
    blocks.rest()
    assert through(blocks, x).equal(through(map(block, range(DEPTH)), x))


def test_weights_that_cant_be_read_are_told_and_read_again():
    faults = [OSError("gone")]

    def read(i):
        if i == 1 and faults:
            raise faults.pop()
        return torch.ones(WIDTH, WIDTH)

    blocks = [nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False) for _ in range(3)]
    origins = [{"weight": Origin(partial(read, i), False, torch.float32)} for i in range(3)]
    turns = ByTurn(blocks, origins, CPU)
    with pytest.raises(OSError, match="gone"):
        through(turns, torch.ones(1, WIDTH))
    assert through(turns, torch.ones(1, WIDTH)).eq(WIDTH**3).all()


def test_fp8_loses_what_it_says():
    """2.65 % of normal numbers, whatever the scale of a row, and nothing of rows of zeros."""
    draw = torch.Generator().manual_seed(0)
    scales = 10 ** torch.linspace(-6, 6, 64)[:, None]
    weight = torch.randn(64, 4096, generator=draw) * scales
    kept, scale = to_fp8(weight)
    assert kept.dtype == torch.float8_e4m3fn and scale.shape == (64, 1)
    assert (kept.float().abs().amax(dim=1) == LARGEST).all()
    lost = (kept.float() * scale - weight).norm(dim=1) / weight.norm(dim=1)
    assert lost.min() > 0.025 and lost.max() < 0.028
    kept, scale = to_fp8(torch.zeros(2, 3))
    assert (kept.float() * scale).eq(0).all()


def test_fp8_is_multiplied_out_in_its_turn():
    weight = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))
    kept, scale = to_fp8(weight)
    one = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
    origin = Origin(lambda: kept, False, torch.bfloat16, scale=lambda: scale)
    for block_ in ByTurn([one], [{"weight": origin}], CPU):
        assert block_.weight.dtype == torch.bfloat16
        assert block_.weight.equal((kept.float() * scale).bfloat16())
