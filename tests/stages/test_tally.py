"""Operations and memory, counted without computing: against closed forms, and against what is
there when it is computed."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from vidgen.stages import needs
from vidgen.stages.base import Compute
from vidgen.stages.estimates import Estimate, _mapped
from vidgen.stages.rates import KEPT, SLICE_S, Clock
from vidgen.stages.tally import tallied
from vidgen.systems import cogvideox, wan

META = {"device": "meta"}


def test_the_peak_is_what_lives_at_once():
    """Products of 400 bytes each: of three in a row two live at once, unless all are kept."""
    x = torch.empty(10, 10, **META)
    with tallied() as tally:
        y = x
        for _ in range(3):
            y = y @ x
    assert tally.peak == 800 and tally.live == 400
    with tallied() as tally:
        kept = [x @ x for _ in range(3)]
        del kept
    assert tally.peak == 1200 and tally.live == 0


def test_views_take_nothing_and_changes_in_place_nothing_more():
    x = torch.empty(10, 10, **META)
    with tallied() as tally:
        y = x.t().reshape(5, 2, 10)[:, :1]
        x.mul_(2)
    assert tally.peak == 0 and y.shape == (5, 1, 10)
    assert [op.nbytes for op in tally.ops] == [800]


def test_flops_are_two_for_each_product_of_two_numbers():
    q = torch.empty(2, 3, 7, 8, **META)
    with tallied() as tally:
        torch.empty(4, 5, **META) @ torch.empty(5, 6, **META)
        F.conv3d(torch.empty(1, 2, 4, 6, 6, **META), torch.empty(3, 2, 3, 3, 3, **META))
        out = F.scaled_dot_product_attention(q, q[:, :, :5], q[:, :, :5])
    product, convolution = 2 * 4 * 5 * 6, 2 * 3 * (2 * 4 * 4) * 2 * 27
    attention = 2 * (2 * 3) * 7 * 5 * 8 * 2
    assert tally.flops == product + convolution + attention
    assert out.shape == q.shape and tally.ops.total() == 3


def test_a_convolution_of_small_pictures_spreads_them_out():
    """Which torch's own kernel does, and oneDNN's doesn't: it takes the input in another order."""
    small, large = (torch.empty(1, 16, 3, n, n, **META) for n in (16, 512))
    weight = torch.empty(4, 16, 3, 3, 3, **META)
    with tallied() as tally:
        F.conv3d(small, weight, padding=(0, 1, 1))
    assert tally.peak == 16**2 * (4 + 16 * 27) * 4
    with tallied() as tally:
        F.conv3d(large, weight, padding=(0, 1, 1))
    assert tally.peak <= 512**2 * (4 + 16 * 3) * 4


def test_only_on_a_cpu():
    """Which has no other kernel for half precision."""
    x = torch.empty(1, 16, 3, 64, 64, dtype=torch.half, **META)
    weight = torch.empty(4, 16, 3, 3, 3, dtype=torch.half, **META)
    peaks = {}
    for device in ("cpu", "cuda"):
        with tallied(device) as tally:
            F.conv3d(x, weight, padding=(0, 1, 1))
        peaks[device] = tally.peak
    assert peaks["cuda"] == 64**2 * (4 + 16 * 3) * 2 <= peaks["cpu"]


class Folder:
    """A folder with an autoencoder."""

    def __init__(self, system, vae):
        self.vae = vae
        self.released = self
        self.decoded = system.decoded

    def build_autoencoder(self, folder):
        return self.vae


@pytest.fixture(params=["wan", "cogvideox"])
def folder(request):
    from test_tiles import COGVIDEOX, WAN

    from vidgen.nn.causal_vae import CausalVAE
    from vidgen.nn.cogvideox_vae import CogVideoXAutoencoder

    with torch.device("meta"):
        if request.param == "wan":
            return Folder(wan, CausalVAE(WAN))
        return Folder(cogvideox, CogVideoXAutoencoder(COGVIDEOX))


@pytest.mark.parametrize("t", [2, 8, 9])
def test_further_chunks_are_as_the_last_one_seen(folder, t):
    compute, shape = Compute("cpu", "fp32"), (4, t, 8, 8)
    found = needs.decoding(folder, compute, Counter({shape: 2}), None)
    with tallied() as tally:
        for pixels in folder.decoded(folder.vae, torch.empty(1, *shape, **META)):
            pixels.float()
    assert found.ops == Counter({op: 2 * n for op, n in tally.ops.items()})
    assert found.peak == tally.peak + needs.kept(tally.peak)


def test_memory_of_decoding_does_not_grow_with_the_clip(folder):
    """By chunks; at once it does."""
    compute = Compute("cpu", "fp32")
    short, long = (
        needs.decoding(folder, compute, Counter({(4, t, 8, 8): 1}), None).peak for t in (7, 15)
    )
    assert long == pytest.approx(short, rel=0.02)


@pytest.mark.parametrize(("libc", "share"), [("glibc", 5), ("", 0)])
def test_what_glibc_keeps(monkeypatch, libc, share):
    """Of little work a multiple, of more no more than so many bytes; of other allocators nothing is
    known."""
    monkeypatch.setattr(needs.platform, "libc_ver", lambda: (libc, ""))
    assert needs.kept(1000) == 1000 * share
    assert needs.kept(10**12) == (needs.KEPT if share else 0)


DECODING = """
from collections import Counter
from types import SimpleNamespace
import torch
from vidgen.nn.causal_vae import CausalVAE, CausalVAEConfig
from vidgen.stages import needs
from vidgen.stages.base import Compute
from vidgen.stages.memory import resident_bytes
from vidgen.stages.tiles import Tiles
from vidgen.systems import wan

config, tiles = CausalVAEConfig(width=8, decoder_width=16), Tiles(8, 8, 8)
vae, z = CausalVAE(config).requires_grad_(False), torch.randn(16, 3, 8, 12)
with torch.device("meta"):
    meta = CausalVAE(config)
folder = SimpleNamespace(decoded=wan.decoded, build_autoencoder=lambda _: meta)
folder.released = folder
work = needs.decoding(folder, Compute("cpu", "fp32"), Counter({tuple(z.shape): 1}), tiles)
before = resident_bytes()
tiles.decoded(z, lambda z: (pixels[0] for pixels in wan.decoded(vae, z[None])))
lines = open("/proc/self/status").read().splitlines()
peak = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))
print((before + work.peak) / peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(needs.platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_of_a_process_that_decodes_in_tiles():
    """Against the largest peak of three runs, since the allocator gives back more in some than in
    others; what is allocated alone would be less than 0.7 of it."""
    shares = []
    for _ in range(3):
        ran = subprocess.run([sys.executable, "-c", DECODING], check=True, capture_output=True,
                             env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        shares.append(float(ran.stdout))
    assert 0.75 < min(shares) < 1.3


def test_time_is_that_of_each_operation_times_their_number():
    with tallied() as tally:
        a = torch.empty(64, 64, **META)
        (a @ a).exp()
    clock = Clock(torch.device("cpu"))
    once = clock.seconds(tally.ops)
    assert once > 0
    twice = clock.seconds(Counter({op: 2 * n for op, n in tally.ops.items()}))
    assert twice == pytest.approx(2 * once)


def test_what_would_take_long_is_timed_on_a_slice():
    with tallied() as tally:
        torch.empty(2**20, 1024, **META) @ torch.empty(1024, 1024, **META)
    (op,) = tally.ops
    clock = Clock(torch.device("cpu"))
    part = clock._slice(op)
    assert clock._guess(op) > SLICE_S and part.flops < op.flops
    rows, columns = part.args[0].sizes
    assert columns == 1024 and part.flops * 2**20 == op.flops * rows


def test_slices_of_what_has_its_sizes_as_numbers():
    """A group norm is told how many places there are; a layer norm's last side stays."""
    clock = Clock(torch.device("cpu"))
    clock._byte_s = 1e-9  # a machine with fast memory would slice nothing
    with tallied() as tally:
        F.group_norm(torch.empty(1, 8, 4, 512, 2**14, **META), 4)
        F.layer_norm(torch.empty(2, 2**26, **META), (2**26,))
    group, layer = tally.ops
    part = clock._slice(group)
    assert part.args[0].sizes[:4] == (1, 8, 4, 512) and part.nbytes < group.nbytes
    assert clock._slice(layer) is layer


def test_a_slice_is_of_small_blocks_and_the_whole_of_new_pages(monkeypatch):
    """4 GiB come out of an operation whose slice makes blocks that the allocator keeps."""
    clock = Clock(torch.device("cpu"))
    clock._byte_s, clock._new_byte_s = 1e-9, 1e-9
    with tallied() as tally:
        torch.empty(2**15, 2**15, **META).exp()
    (op,) = tally.ops
    part = clock._slice(op)
    assert op.made == (2**32,) and part.made[0] <= KEPT
    monkeypatch.setattr(clock, "_timed", lambda run: 0.04)
    assert clock.of(op) == pytest.approx(0.04 * op.nbytes / part.nbytes + 2**32 * 1e-9)


def test_memory_while_weights_are_read():
    """The fullest moment is then, where work needs less than the files have."""
    estimate = Estimate(0, 0.0, 0, weights=100, work=20, program=10, loading=300)
    told = estimate.told(Compute("cpu"), "x")["memory"]
    assert told == (
        "about 310 B: weights 100 B (300 B while they are read), work 20 B, the program 10 B"
    )
    estimate = replace(estimate, work=250)
    assert estimate.memory == 360 and "read" not in estimate.told(Compute("cpu"), "x")["memory"]


@pytest.mark.parametrize(("stored", "converted"), [("float32", 0), ("bfloat16", 1)])
def test_what_is_converted_is_in_memory_twice_while_it_is_read(stored, converted):
    """Of a network of 300 numbers, computed with in float32, that lie in float32 or half that."""
    dtype = getattr(torch, stored)
    network = torch.nn.Linear(10, 30, bias=False)
    found = {"weight": SimpleNamespace(torch_dtype=dtype)}
    run = SimpleNamespace(build=lambda _: network, windows=lambda *_: found,
                          dtype_of=lambda name, wanted: wanted)  # fmt: skip
    assert _mapped(run, "transformer", Compute("cpu")) == (1200, 1200 + 600 * converted)
