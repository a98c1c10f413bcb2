"""The way from keyframes to a larger, longer video: what it takes as a whole, what decoding a long
clip takes of memory, and what the kinds of interpolation cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.commands import PROMPT
from benchmarks.common import VIDGEN, Row, cpu_seconds, interleaved, shell
from vidgen.diffusion import guidance
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, denoiser
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import SOLVERS
from vidgen.io.record import Record
from vidgen.io.stream import write_stream
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems import interpolation, load
from vidgen.systems.base import ModelFolder
from vidgen.train.recipe import load_recipe, section

LONG, SHORT = 257, 33  # frames; the aim is that the first takes at most 1.5 times the memory
AIM_S = 10  # of a prompt's way to 17 frames of 80 × 128, on two cores
FRAMES = "17 frames of 80 x 128"


def cascade() -> list[Row]:
    """Prompt → 17 frames of 80 × 128 → mp4, by `generate` and as a pipeline of five commands.

    The aim is a pipeline that takes at most 1.3 times as long. On two cores that is out of reach:
    each of the five imports torch, and these imports alone keep both cores busy for about as long
    as `generate` takes from its start to its end. So there are rows of processor time too.
    """
    folder = ModelFolder.find()
    parts = ("interpolation", "upsampler")
    if missing := [part for part in parts if not folder.has(part)]:
        why = f"skipped: `{folder.name}` has no {', '.join(missing)} yet"
        return [Row(f"prompt to mp4, {FRAMES}", "", "", None, why)]
    single = f'vidgen generate "{PROMPT}" --seed 7 -f -o a.mp4'
    piped = (
        f'vidgen encode-text "{PROMPT}" | vidgen sample-keyframes --seed 7 | vidgen interpolate'
        " | vidgen upsample | vidgen decode -f -o b.mp4"
    )
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        pipe, one = interleaved(lambda: shell(piped, at), lambda: shell(single, at), repeat=3)
        cpu, cpu_one = cpu_seconds(lambda: shell(piped, at)), cpu_seconds(lambda: shell(single, at))
        torches = 5 * cpu_seconds(lambda: shell(f"{sys.executable} -c 'import vidgen.stages'", at))
        same = (at / "a.mp4").read_bytes() == (at / "b.mp4").read_bytes()
        made = shape_of(at / "a.mp4")
    note = f"{made}; aim {AIM_S} s on two cores"
    alike = "same bytes" if same else "NOT the same bytes"
    return [
        Row(f"generate: prompt to mp4, {FRAMES}", f"{one:.2f} s", f"{AIM_S} s", one / AIM_S, note),
        Row("pipeline of five / generate", f"{pipe:.2f} s", f"{one:.2f} s", pipe / one, alike),
        Row("the same in CPU seconds", f"{cpu:.2f} s", f"{cpu_one:.2f} s", cpu / cpu_one),
        Row("CPU seconds of torch's import, five times / generate", f"{torches:.2f} s",
            f"{cpu_one:.2f} s", torches / cpu_one, "as stages import it: none can save that"),
    ]  # fmt: skip


def shape_of(path: Path) -> str:
    """A video's frames, rows and columns."""
    from vidgen.io.video import read_video

    frames = read_video(path)[0]
    return "x".join(map(str, frames.shape[:3]))


def decoding_memory(height: int = 80, width: int = 128) -> list[Row]:
    """Peak resident memory of `vidgen decode` of a long clip and of a short one, by the image
    decoder and, where the model has one, the video decoder."""
    folder = ModelFolder.find()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        clips = {n: clip(at / f"{n}.vgs", folder, n, height, width) for n in (LONG, SHORT)}
        for which, component in (("image", "vae"), ("video", "video_decoder")):
            what = f"peak memory, {which} decoder, {LONG} / {SHORT} frames of {height} x {width}"
            if not folder.has(component):
                why = f"skipped: `{folder.name}` has no {component} yet"
                rows.append(Row(what, "", "", None, why))
                continue
            peaks = {
                n: peak_mib(
                    [*VIDGEN, "decode", str(path), "--decoder", which, "-f", "-o",
                     str(at / f"{n}.mp4")]
                )
                for n, path in clips.items()
            }  # fmt: skip
            rows.append(
                Row(what, f"{peaks[LONG]:.0f} MiB", f"{peaks[SHORT]:.0f} MiB",
                    peaks[LONG] / peaks[SHORT], "aim 1.5")
            )  # fmt: skip
    return rows


def clip(path: Path, folder: ModelFolder, frames: int, height: int, width: int) -> Path:
    """Write latents of noise: decoding takes what it takes for any."""
    channels, stride = folder.size("vae", "channels"), folder.size("vae", "stride")
    draw = torch.Generator().manual_seed(frames)
    latents = torch.randn(channels, frames, height // stride, width // stride, generator=draw)
    record = Record.make(
        "latents",
        "noise",
        {"latents": latents, "times": torch.arange(frames, dtype=torch.float64) / 8},
        {
            "latent_space": folder.latent_space, "num_frames": frames, "height": height,
            "width": width, "fps": 8.0,
        },
    )  # fmt: skip
    with path.open("wb") as f:
        write_stream([record], f)
    return path


PEAK = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


def peak_mib(command: list[str]) -> float:
    """The largest resident size of one command, MiB: measured by a process that has run nothing
    else, and is small itself."""
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, *command], check=True, capture_output=True, env=os.environ
    )
    return json.loads(ran.stdout) / 1024


def interpolating() -> list[Row]:
    """Five keyframes of 40 × 64 to 17 latents by the networks of the recipes, grouped and masked,
    with new weights: what they cost doesn't depend on those."""
    ways = {method: sampling(method) for method in ("grouped", "masked")}
    sizes = {
        method: sum(p.numel() for p in UNet(config_of(method)).parameters()) / 1e6
        for method in ways
    }
    grouped, masked = interleaved(ways["grouped"], ways["masked"], repeat=3)
    note = f"{sizes['grouped']:.2f} M, {sizes['masked']:.2f} M parameters; the paper: under 1/3"
    steps = load_recipe("world-interpolation").loss["steps"]
    what = f"interpolate 5 to 17, {steps} steps, grouped / masked"
    return [Row(what, f"{grouped:.3f} s", f"{masked:.3f} s", grouped / masked, note)]


def config_of(method: str) -> UNetConfig:
    """Of the network that the shipped recipe trains for this method."""
    recipe = load_recipe("world-interpolation", preset=None if method == "grouped" else method)
    return section(UNetConfig, recipe.model, where="model")


def sampling(method: str) -> Callable[[], None]:
    """A run of the sampler as the interpolation stage makes it, weights in place."""
    from vidgen.diffusion.groups import PACKINGS

    config, packing = config_of(method), PACKINGS[method]
    torch.manual_seed(0)
    network = UNet(config).eval().requires_grad_(False)
    keyframes = torch.randn(1, 8, 5, 5, 8)
    cond = interpolation.cond(config, method, keyframes, torch.tensor([3]), 24.0)
    raw = interpolation.raw(network, method)
    own = load_recipe("world-interpolation").loss
    settings = interpolation.Settings(
        own["prediction"], "cosine", "dpmpp_2m", own["steps"], own["guidance_scale"],
        guidance_min_sigma=own.get("guidance_min_sigma"),
    )  # fmt: skip
    plain = denoiser(raw, PREDICTIONS[settings.prediction]())
    guided = guidance.guided_by(plain, cond, "context", settings.guidance_scale)
    denoise = load.within(guided, plain, settings)
    noise = Noise([(0, "bench")], stage="bench")
    levels = SCHEDULES[settings.schedule](settings.num_inference_steps)
    z = noise.initial(packing.shape(keyframes.shape[1:])) * levels[0].sigma

    def run() -> None:
        for _ in SOLVERS[settings.solver](denoise, z, levels, cond, noise):
            pass

    return run
