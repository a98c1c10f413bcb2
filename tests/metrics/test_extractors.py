"""Extractors by name: what they take, what they say of themselves, what they refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidgen.errors import InputError, UsageError
from vidgen.metrics import c3d, preprocess
from vidgen.metrics.extractors import NAMES, PROTOCOLS, make
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.state_file import read_state
from vidgen.nn import c3d as net_of_c3d
from vidgen.nn.i3d import I3D
from vidgen.nn.i3d_keys import from_native, to_native

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    made = I3D().state_dict()
    for name, x in made.items():
        if x.ndim == 5:
            x.normal_(std=(2 / x[0].numel()) ** 0.5)
        elif name.endswith("running_mean"):
            x.normal_(std=0.1)
    return made


@pytest.fixture(scope="module")
def files(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both files that people have, by layout."""
    folder = tmp_path_factory.mktemp("weights")
    files = {"hassony2": folder / "hub.safetensors", "piergiaj": folder / "i3d_pretrained_400.pt"}
    hub = {name: x.contiguous() for name, x in from_native(state, "hassony2").items()}
    save_file(hub, files["hassony2"])
    torch.save(from_native(state, "piergiaj"), files["piergiaj"])
    return files


def test_logits_of_the_prepared_clip(state: dict[str, Tensor], files: dict[str, Path]) -> None:
    made = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (1, 9, 24, 40, 3), dtype=torch.uint8, generator=made)
    extractor = make("i3d:stylegan-v", weights=files["hassony2"], device=CPU)
    features = extractor(clips)
    net = I3D(epsilon=1e-3, pools="hassony2").eval().requires_grad_(False)
    net.load_state_dict(state)
    assert features.shape == (1, extractor.dim) and features.dtype == torch.float32
    torch.testing.assert_close(features, net(preprocess.stylegan_v(clips)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_settings_tell_protocols_apart(name: str, files: dict[str, Path]) -> None:
    layout = PROTOCOLS[name].layouts[0]
    extractor = make(f"i3d:{name}", weights=files[layout], device=CPU)
    said = extractor.settings
    json.dumps(said)
    assert said["extractor"] == extractor.name == f"i3d:{name}"
    assert said["weights_sha256"] == extractor.sha256 and len(extractor.sha256) == 64
    assert said["weights_layout"] == layout
    assert said["batch_norm_epsilon"] == (1e-3 if layout == "hassony2" else 1e-5)
    assert extractor.net.Mixed_5c.b0.bn.epsilon == said["batch_norm_epsilon"]
    assert extractor.min_frames == 9
    with pytest.raises(InputError, match=f"of 8 frames; i3d:{name} needs 9"):
        extractor(torch.zeros(1, 8, 10, 10, 3, dtype=torch.uint8))


def test_what_is_said_is_what_is_done() -> None:
    clips = torch.randint(0, 256, (1, 1, 60, 90, 3), dtype=torch.uint8)
    pixels = {name: p.prepare(clips) for name, p in PROTOCOLS.items()}
    said = {name: p.said for name, p in PROTOCOLS.items()}
    for a in PROTOCOLS:
        for b in PROTOCOLS:
            assert torch.equal(pixels[a], pixels[b]) == (said[a] == said[b]) == (a == b)


def test_a_file_of_the_other_network(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"piergiaj.*i3d:google takes hassony2") as error:
        make("i3d:google", weights=files["piergiaj"], device=CPU)
    assert "i3d:tats" in str(error.value.next)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "world"])
def test_missing_weights_say_which_and_how_large(name: str) -> None:
    with pytest.raises(UsageError) as error:
        make(name, weights=None, device=CPU)
    said = error.value.lines()
    assert name in said[0] and "MB" in said[1] and "--weights" in said[2]


def test_names() -> None:
    assert set(NAMES) == {"world", "clip", "c3d"} | {f"i3d:{name}" for name in PROTOCOLS}
    with pytest.raises(UsageError, match="no extractor 'i3d'") as error:
        make("i3d", weights=None, device=CPU)
    assert "i3d:google" in str(error.value.next)
    with pytest.raises(UsageError, match="brings its own"):
        make("world", weights=Path("x"), device=CPU)


class Stored(nn.Module):
    """A network of nothing but its tensors; it may not be run."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        inside: dict[str, dict[str, Tensor]] = {}
        for name, x in state.items():
            first, _, rest = name.partition(".")
            if rest:
                inside.setdefault(first, {})[rest] = x
            else:
                self.register_buffer(first, x)
        for name, some in inside.items():
            self.add_module(name, Stored(some))

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False) -> Tensor:
        raise RuntimeError("it was run")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_read_and_not_run(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(Stored(from_native(state, "hassony2"))).save(str(path))
    layout, found = to_native(read_state(path))
    assert layout == "hassony2"
    assert all(torch.equal(found[name], x) for name, x in state.items())
    assert make("i3d:google", weights=path, device=CPU).settings["weights_layout"] == "hassony2"


def test_state_dicts_that_are_wrapped(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"module.a": torch.ones(2)}, "epoch": 3}, path)
    assert list(read_state(path)) == ["a"]
    np.savez(tmp_path / "a.npz", **{"conv1a/W": np.ones(3)})
    assert read_state(tmp_path / "a.npz")["conv1a/W"].shape == (3,)


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("harm",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no weights that can be read"),
        (b"no weights at all", "no weights that can be read"),
        ({"a": Harmful()}, "no weights that can be read"),
        ({"a": 1}, "'a' is no tensor, but int"),
        ([1, 2], "no state dict, but list"),
        ({"conv1.weight": torch.zeros(64, 3)}, "not the weights of I3D"),
    ],
)
def test_what_holds_no_weights(
    content, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as error:
        make("i3d:tats", weights=path, device=CPU)
    assert said in error.value.what and str(path) in error.value.what
    assert not (tmp_path / "harm").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: no such file"):
        make("i3d:tats", weights=tmp_path / "nope.pt", device=CPU)


@pytest.mark.parametrize("own_mean", [False, True])
def test_c3d(own_mean: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small() -> net_of_c3d.C3D:
        return net_of_c3d.C3D(widths=(4, 4, 4, 4, 4), hidden=8)

    torch.manual_seed(0)
    net = small().eval().requires_grad_(False)
    monkeypatch.setattr(c3d, "C3D", small)
    arrays = net_of_c3d.from_native(net.state_dict(), "chainer")
    mean = torch.tensor(net_of_c3d.CHANNEL_MEANS).view(3, 1, 1, 1)
    if own_mean:
        mean = torch.rand(3, 16, 112, 112) * 200
        arrays |= {"mean/b": 128 - mean, "pre/W": torch.zeros(3, 3, 1, 1, 1)}
    np.savez(tmp_path / "c3d.npz", **{name: x.numpy() for name, x in arrays.items()})
    extractor = make("c3d", weights=tmp_path / "c3d.npz", device=CPU)
    clips = torch.randint(0, 256, (2, 16, 20, 30, 3), dtype=torch.uint8)
    expected = net(preprocess.tgan2(clips, -mean))
    assert extractor.dim == expected.shape[1] == 101
    torch.testing.assert_close(extractor(clips), expected, atol=1e-3, rtol=1e-3)
    assert ("every place" in extractor.settings["preprocessing"]) == own_mean
    with pytest.raises(InputError, match="of 17 frames; c3d takes 16"):
        extractor(torch.zeros(1, 17, 8, 8, 3, dtype=torch.uint8))
    torch.save({"conv1a.weight": torch.zeros(3)}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="not the weights of C3D"):
        make("c3d", weights=tmp_path / "bad.pt", device=CPU)


@pytest.mark.skipif("VIDGEN_I3D" not in os.environ, reason="VIDGEN_I3D names no i3d_torchscript.pt")
@pytest.mark.parametrize(("frames", "expected"), [(30, 151.26), (10, 569.23)])
def test_black_against_white_as_published(frames: int, expected: float) -> None:
    """README of JunyaoHu/common_metrics_on_video_quality. All clips are equal, so that only the
    means differ, and how frames are resized matters not. Both lengths become odd before a pool that
    halves them: if this misses, the port's pools are aligned as TensorFlow's are."""
    extractor = make("i3d:stylegan-v", weights=Path(os.environ["VIDGEN_I3D"]), device=CPU)
    size = (1, frames, 64, 64, 3)
    black, white = (
        extractor(torch.full(size, level, dtype=torch.uint8)).expand(8, -1) for level in (0, 255)
    )
    assert frechet_distance(black, white) == pytest.approx(expected, rel=1e-3)
