"""`python -m benchmarks.parity`: how far vidgen is from diffusers on the same weights.

Tiny random folders of each released kind (`benchmarks.parity_folders`), float32, on the CPU: the
commands from prompt to frames against diffusers' own pipeline from the same noise, and each part
for itself. Errors are |ours − theirs| / |theirs|, norms over all numbers. The tests hold the same
figures to `BOUNDS`. Writes docs/parity.md.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import machine
from benchmarks.parity_folders import (
    KINDS,
    MADE,
    CogVideoXDPMScheduler,
    write,
)
from vidgen.cli import app
from vidgen.diffusion.noise import Noise
from vidgen.io.image import write_png
from vidgen.io.record import Record
from vidgen.io.stream import read_stream
from vidgen.stages.sample_clips import STAGE, run_of
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems import cogvideox as cogvideox_system
from vidgen.systems.base import ModelFolder

DOCS = Path(__file__).parent.parent / "docs"
PROMPT, NEGATIVE, SEED, STEPS, SCALE = "a red ball bounces on the grass", "blue cat", 7, 5, 4.0

# Of the parts 1e-5, of what goes through all steps 1e-4.
BOUNDS = {
    "text": 1e-5, "network": 1e-5, "decoder": 1e-5, "encoder": 1e-5, "chunks": 1e-5,
    "worst step": 1e-4, "latents": 1e-4, "frames": 1e-4,
}  # fmt: skip
MEANING = {
    "text": "embeddings of the prompt, padded as the network reads them",
    "network": "one call of the transformer (each of two experts)",
    "encoder": "pixels to latents, mean",
    "decoder": "latents to pixels, in the chunks that `decode` takes",
    "chunks": "the decoder in those chunks against the whole; of CogVideoX, whose norms see a chunk"
    " only, the beginning of a longer clip against that beginning alone",
    "worst step": f"z after each of {STEPS} steps with guidance, the largest",
    "latents": "`vidgen encode-text | vidgen sample` against the pipeline",
    "frames": "the same, decoded, in −1…1 before they are rounded to 8 bits",
}


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative, over all numbers."""
    if found.shape != wanted.shape:
        raise ValueError(f"{list(found.shape)} against {list(wanted.shape)}")
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def asked(kind: str, out: Path) -> list[str]:
    """The options of `vidgen sample` for a kind."""
    frames, height, width = MADE[kind]
    picture = ["--image", str(out / "picture.png")] if kind.endswith("picture") else []
    return [*picture, "--steps", str(STEPS), "--guidance-scale", f"{SCALE:g}", "--seed", str(SEED),
            "--num-frames", str(frames), "--size", f"{width}x{height}"]  # fmt: skip


def ours(kind: str, folder: Path, out: Path) -> dict[str, Record]:
    """The records of the three commands."""
    model = ["--model", str(folder), "--device", "cpu", "-f"]
    texts, latents, frames = (str(out / f"{x}.vgs") for x in ("text", "latents", "frames"))
    encoding = ["--negative", NEGATIVE, "--no-cache", "--model", str(folder), "-f"]
    for words in (
        ["encode-text", PROMPT, *encoding, "-o", texts],
        ["sample", texts, *asked(kind, out), *model, "-o", latents],
        ["decode", latents, *model, "-o", frames],
    ):
        if code := app.main([*words, "-q"]):
            raise RuntimeError(f"vidgen {words[0]} ends with {code}")
    return {
        name: next(iter(read_stream(out / f"{name}.vgs"))) for name in ("text", "latents", "frames")
    }


def picture(out: Path) -> np.ndarray:
    """What clips begin with, `H W 3` uint8, of another size than they; and its file."""
    drawn = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(drawn).resize((90, 70)))
    write_png(out / "picture.png", image)
    return image


def theirs(
    kind: str, pipeline: Any, noise: Noise, shape: tuple[int, ...], image: np.ndarray
) -> dict[str, Any]:
    """diffusers' pipeline from the prompt: `steps`, z after each, `b c t h w`, and `frames` in
    −1…1."""
    cogvideox, steps = kind.startswith("cogvideox"), list[Tensor]()

    def turned(z: Tensor) -> Tensor:
        return z.transpose(1, 2) if cogvideox else z

    def seen(pipe: Any, i: int, t: Any, found: dict[str, Any]) -> dict[str, Any]:
        steps.append(turned(found["latents"]).clone())
        return found

    frames, height, width = MADE[kind]
    more: dict[str, Any] = {"max_sequence_length": 512}
    if cogvideox:
        more = {"max_sequence_length": pipeline.transformer.config.max_text_seq_length}
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind.endswith("picture"):
            more["image"] = Image.fromarray(image)
            eps = Noise(noise.samples, stage=cogvideox_system.PICTURE)
            first = lambda *a, **k: eps.initial((shape[0], 1, *shape[2:]))  # noqa: E731
            of_posterior = "diffusers.models.autoencoders.vae.randn_tensor"
            stack.enter_context(mock.patch(of_posterior, first))
        if isinstance(pipeline.scheduler, CogVideoXDPMScheduler):
            more["use_dynamic_cfg"] = True
            # Ours draws by the number of the step; so does theirs here.
            drawn = lambda *a, **k: turned(noise.step(len(steps), shape))  # noqa: E731
            where = CogVideoXDPMScheduler.step.__globals__
            stack.enter_context(mock.patch.dict(where, randn_tensor=drawn))
        out = pipeline(
            prompt=PROMPT, negative_prompt=NEGATIVE, height=height, width=width,
            num_frames=frames, num_inference_steps=STEPS, guidance_scale=SCALE,
            latents=turned(noise.initial(shape)), callback_on_step_end=seen,
            output_type="pt", return_dict=False, **more,
        )[0]  # fmt: skip
    return {"steps": steps, "frames": out[0] * 2 - 1}  # t 3 h w


# It wants ftfy, which isn't needed for this prompt.
@mock.patch("diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean", str)
def measure(kind: str, folder: Path, out: Path) -> dict[str, float]:
    """The errors of a kind, by the names of `BOUNDS`; its folder is written into `folder`."""
    pipeline, image = write(kind, folder), picture(out)
    made = ours(kind, folder, out)
    model = ModelFolder.find(str(folder))
    frames, height, width = MADE[kind]
    choices = Choices(
        num_inference_steps=STEPS, guidance_scale=SCALE, num_frames=frames, size=(width, height),
        image=str(out / "picture.png") if kind.endswith("picture") else None,
    )  # fmt: skip
    run = run_of(model, choices)
    noise = Noise([(SEED, made["text"].id)], stage=STAGE)
    wanted = theirs(kind, pipeline, noise, run.shape, image)
    system = model.released
    vae = system.load_autoencoder(model)
    latents = made["latents"].torch("latents")[None]
    with torch.no_grad():
        pixels = torch.cat(list(system.decoded(vae, latents)), dim=2)
        errors = _parts(kind, pipeline, model, run, made["text"], latents, pixels)
        given = run.pictured(image, latents.device, latents.dtype)(noise) if run.pictured else {}
        known = given["first"].shape[2] if "first" in given else 0  # which theirs sets at the end
        errors |= _steps(
            run, made["text"], given, noise, [z[:, :, known:] for z in wanted["steps"]]
        )
    errors["latents"] = error(latents[:, :, known:], run.kept(wanted["steps"][-1])[:, :, known:])
    errors["frames"] = error(pixels[0].clamp(-1, 1).transpose(0, 1), wanted["frames"])
    rounded = made["frames"].torch("frames").permute(0, 3, 1, 2).float() / 127.5 - 1
    if (rounded - wanted["frames"]).abs().max() > 1.01 / 255:  # half a step is 1/255
        raise ValueError(f"{kind}: the frames of 8 bits are others")
    return {name: errors[name] for name in BOUNDS}


def _conds(run: Any, text: Record) -> list[dict[str, Tensor]]:
    """The prompt's condition and the negative prompt's."""
    return [
        {"text": run.text(text.torch(f"{p}embeds")[None], text.torch(f"{p}mask").bool()[None])}
        for p in ("text.", "text.negative_")
    ]


def _parts(
    kind: str, pipeline: Any, model: ModelFolder, run: Any, text: Record, latents: Tensor,
    pixels: Tensor,
) -> dict[str, float]:  # fmt: skip
    cond, uncond = _conds(run, text)
    length = cond["text"].shape[1]
    embeds = pipeline.encode_prompt(PROMPT, NEGATIVE, max_sequence_length=length)
    pairs = zip((cond, uncond), embeds, strict=True)
    errors = {"text": max(error(mine["text"], their) for mine, their in pairs)}

    draw, t = torch.Generator().manual_seed(1), torch.tensor([800.0])
    z = torch.randn(1, pipeline.transformer.config.in_channels, *run.shape[1:], generator=draw)
    tokens = None
    if width := getattr(pipeline.transformer.config, "image_dim", None):
        tokens = torch.randn(1, 5, width, generator=draw)
    errors["network"] = max(
        error(
            run.load(name, torch.float32)(z, t, text=cond["text"], image=tokens),
            _their_network(kind, pipeline, getattr(pipeline, name), z, t, cond["text"], tokens),
        )
        for name in run.components
    )
    vae, system = model.released.load_autoencoder(model), model.released
    frames = torch.randn(1, *pixels.shape[1:], generator=torch.Generator().manual_seed(2))
    frames = frames.clamp(-1, 1)
    posterior = pipeline.vae.encode(frames).latent_dist.mean
    errors["encoder"] = error(vae.posterior(frames)[0], posterior)
    if kind.startswith("wan"):
        mean, std = (
            torch.tensor(pipeline.vae.config[f"latents_{name}"])[:, None, None, None]
            for name in ("mean", "std")
        )
        errors["decoder"] = error(pixels, pipeline.vae.decode(latents * std + mean).sample)
        errors["chunks"] = error(pixels, vae.decode(latents))
        return errors
    scale = pipeline.vae.config.scaling_factor
    errors["decoder"] = error(pixels, pipeline.vae.decode(latents / scale).sample)
    # Chunks are part of what this autoencoder computes: a longer clip begins with the shorter one.
    shorter = torch.cat(list(system.decoded(vae, latents[:, :, :3])), dim=2)
    errors["chunks"] = error(pixels[:, :, : shorter.shape[2]], shorter)
    return errors


def _their_network(
    kind: str, pipeline: Any, network: Any, z: Tensor, t: Tensor, text: Tensor,
    tokens: Tensor | None,
) -> Tensor:  # fmt: skip
    if kind.startswith("wan"):
        return network(z, t, text, tokens, return_dict=False)[0]
    _, _, frames, rows, columns = z.shape
    rotary = None
    if network.config.use_rotary_positional_embeddings:
        rotary = pipeline._prepare_rotary_positional_embeddings(
            rows * 8, columns * 8, frames, torch.device("cpu")
        )
    made = network(z.transpose(1, 2), text, t, image_rotary_emb=rotary, return_dict=False)[0]
    return made.transpose(1, 2)


def _steps(
    run: Any, text: Record, given: dict[str, Tensor], noise: Noise, wanted: list[Tensor]
) -> dict[str, float]:
    """The largest error of z after a step, in its last frames where theirs are fewer."""
    cond, uncond = ({**told, **given} for told in _conds(run, text))
    networks = [run.load(name, torch.float32) for name in run.components]
    steps = run.solve(
        run.denoiser(networks, uncond), noise.initial(run.shape), run.levels, cond, noise
    )
    pairs = zip(steps, wanted, strict=True)
    return {"worst step": max(error(s.z[:, :, -w.shape[2] :], w) for s, w in pairs)}


def table(measured: dict[str, dict[str, float]]) -> str:
    """The page."""
    on = ", ".join(f"{key} {value}" for key, value in machine().items())
    head = ["kind", *BOUNDS]
    lines = [head, ["---"] + ["--:"] * len(BOUNDS)]
    lines += [[kind, *(f"{e:.1e}" for e in errors.values())] for kind, errors in measured.items()]
    lines += [["*bound of the tests*", *(f"{b:.0e}" for b in BOUNDS.values())]]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    words = "\n".join(f"- **{name}**: {meaning}." for name, meaning in MEANING.items())
    return f"""# How far vidgen is from diffusers

Relative errors on the same weights, the same prompt and the same noise, float32, on a CPU. The
models are tiny and random, one of each released kind, written by diffusers and read by vidgen.
`python -m benchmarks.parity` measures them anew; `tests/systems/test_parity.py` holds them to the
last line.

{rows}

{words}

Where both draw noise in a step (the DPM solver), diffusers is given ours. Numbers of steps that
don't divide 1000 are left out for CogVideoX: there the released scheduler lands a timestep beside
the level that its network is told next, and vidgen on it.

Measured on: {on}, diffusers {_version("diffusers")}.
"""


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__).parse_args()
    measured = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            for name in ("model", "out"):
                (Path(scratch) / name).mkdir()
            measured[kind] = measure(kind, Path(scratch) / "model", Path(scratch) / "out")
        print(kind, {name: f"{e:.1e}" for name, e in measured[kind].items()}, flush=True)
    (DOCS / "parity.md").write_text(table(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
