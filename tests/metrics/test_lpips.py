"""LPIPS on random backbones with the real heads, against another way to compute it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vidgen.errors import InputError
from vidgen.io.video import iter_frames
from vidgen.io.weights import load_safetensors
from vidgen.metrics.lpips import HEADS, load_lpips
from vidgen.nn.lpips_backbones import BACKBONES, name_of

# Layers as torchvision numbers them.
ALEX = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}  # stride, padding
VGG_TAPS = (2, 7, 14, 21, 28)
FIRES = {3: 16, 4: 16, 6: 32, 7: 32, 9: 48, 10: 48, 11: 64, 12: 64}
PARAMETERS = {"alex": 2_469_696, "vgg": 14_714_688, "squeeze": 722_496}  # of torchvision's features


def weights(name: str, folder: Path, seed: int = 0) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file as torchvision's, of random weights that keep what they are given alive."""
    draw = torch.Generator().manual_seed(seed)
    state = BACKBONES[name]().state_dict()
    for key, x in state.items():
        scale = (2 / x[0].numel()) ** 0.5 if x.ndim > 1 else 0.1
        state[key] = scale * torch.randn(x.shape, generator=draw)
    state["classifier.1.bias"] = torch.zeros(1000)
    path = folder / f"{name}.pth"
    torch.save(state, path)
    return path, state


def taps(name: str, state: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """What the network sees, layer by layer, by the numbers in torchvision's names."""

    def conv(at: str, x: torch.Tensor, **words) -> torch.Tensor:
        return F.relu(F.conv2d(x, state[f"{at}.weight"], state[f"{at}.bias"], **words))

    seen = []
    if name == "alex":
        for i, (stride, padding) in ALEX.items():
            if i in (3, 6):
                x = F.max_pool2d(x, 3, 2)
            x = conv(f"features.{i}", x, stride=stride, padding=padding)
            seen.append(x)
    elif name == "vgg":
        for i in range(29):
            if i in (4, 9, 16, 23):
                x = F.max_pool2d(x, 2)
            if f"features.{i}.weight" in state:
                x = conv(f"features.{i}", x, padding=1)
            if i in VGG_TAPS:
                seen.append(x)
    else:
        x = conv("features.0", x, stride=2)
        seen.append(x)
        for i in FIRES:
            if i in (3, 6, 9):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            few = conv(f"features.{i}.squeeze", x)
            x = torch.cat(
                [
                    conv(f"features.{i}.expand1x1", few),
                    conv(f"features.{i}.expand3x3", few, padding=1),
                ],
                1,
            )
            if i in (4, 7, 9, 10, 11, 12):
                seen.append(x)
    return seen


def clips(size: int = 34) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    a, b = (torch.randint(256, (1, 2, size, size + 5, 3), generator=draw) for _ in range(2))
    return a.to(torch.uint8), ((3 * a + b) // 4).to(torch.uint8)


def real(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two frames of a video with some noise, and without."""
    path = Path(__file__).parent.parent / "data" / name
    frames = [
        torch.from_numpy(f.rgb[:96, :128].copy()) for f in iter_frames(str(path), num_frames=2)
    ]
    true = torch.stack(frames)[None]
    noise = 25 * torch.randn(true.shape, generator=torch.Generator().manual_seed(3))
    return (true + noise).clamp(0, 255).to(torch.uint8), true


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("video", [None, "circle.gif", "h265_video.mp4", "pigs_in_a_polka.gif"])
def test_lpips_is_what_the_paper_says(name: str, video: str | None, tmp_path: Path) -> None:
    path, state = weights(name, tmp_path)
    made, true = clips() if video is None else real(video)
    heads = load_safetensors(HEADS / f"{name}.safetensors")
    scaled = []
    for clip in (made, true):
        x = clip[0].double().permute(0, 3, 1, 2) / 255 * 2 - 1
        for c, (shift, scale) in enumerate(
            zip((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450), strict=True)
        ):
            x[:, c] = (x[:, c] - shift) / scale
        scaled.append(taps(name, {k: v.double() for k, v in state.items()}, x))
    expected = torch.zeros(2, dtype=torch.float64)
    for i, (x, y) in enumerate(zip(*scaled, strict=True)):
        head = heads[f"lin{i}.model.1.weight"].double()
        assert (head >= 0).all()
        x, y = (v / (v.norm(dim=1, keepdim=True) + 1e-10) for v in (x, y))
        expected += F.conv2d((x - y) ** 2, head).mean(dim=(1, 2, 3))
    net = load_lpips(path)
    found = net(made, true)
    assert net.name == name and found.shape == (1, 2)
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.min()) > 1e-3
    assert float(net(true, true).abs().max()) == 0


def test_convolutions_keep_all_digits_on_a_gpu(tmp_path: Path) -> None:
    """cuDNN's default, TF32, has ten bits."""
    net, seen = load_lpips(weights("squeeze", tmp_path)[0]), []
    net.backbone.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    net(*clips())
    assert seen == [False, False]


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_the_parameters_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        net = BACKBONES[name]()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
    heads = load_safetensors(HEADS / f"{name}.safetensors")
    assert [x.shape[1] for _, x in sorted(heads.items())] == list(net.channels)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_smallest_picture(name: str) -> None:
    net = BACKBONES[name]()
    side = net.smallest
    assert min(min(x.shape) for x in net(torch.zeros(1, 3, side, side))) == 1
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 3, side - 1, side - 1))


def test_too_small_a_clip(tmp_path: Path) -> None:
    made, true = clips(24)
    with pytest.raises(ValueError, match="24 × 29, sides are 31 or more"):
        load_lpips(weights("alex", tmp_path)[0])(made, true)


def test_another_network_is_refused(tmp_path: Path) -> None:
    _, state = weights("vgg", tmp_path)
    assert name_of(state) == "vgg"
    del state["features.28.bias"]
    assert name_of(state) is None
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(InputError, match="is no backbone of LPIPS"):
        load_lpips(tmp_path / "other.pth")
