"""Previews of released models: what colors they have, where they are, and that nothing else
changes."""

import shutil

import pytest
import torch
from released_folders import write

from vidgen.errors import Exit
from vidgen.io.image import read_image
from vidgen.stages import previews
from vidgen.systems.base import ModelFolder

SAMPLE = ("sample", "--prompt", "a red ball", "--steps", "4", "--size", "32x32")


@pytest.fixture(scope="module", params=["wan 2.1", "cogvideox 2b"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write(request.param, folder)
    return folder


def test_a_linear_decoder_is_found():
    """Latents of which colors are made linearly give that map, and all is explained."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, 5, 6, generator=draw)
    made = previews.Projection(torch.randn(5, 3, generator=draw), 1.0)
    found = previews._least_squares(latents, made.colors(latents))
    torch.testing.assert_close(found.weight, made.weight, rtol=0, atol=1e-5)
    assert found.explained == pytest.approx(1)
    noise = torch.randn(2, 3, 3, 5, 6, generator=draw)
    assert previews._least_squares(latents, noise).explained < 0.2


def test_pictures_lie_beside_checkpoints_and_change_nothing(vidgen, model, tmp_path):
    words = (*SAMPLE, "--num-frames", "9", "--model", str(model))
    plain = vidgen(*words)
    assert plain.code == 0, plain.err
    folder = tmp_path / "steps"
    kept = ("--checkpoint", str(folder), "--preview-every", "2")
    stopped = vidgen(*words, *kept, "--stop-after", "2")
    assert stopped.code == Exit.TRY_AGAIN and "previews are approximate" in stopped.err
    (first,) = folder.glob("*.png")
    assert first.with_suffix(".safetensors").is_file()
    early = read_image(first)
    ran = vidgen(*words, *kept)
    assert ran.code == 0 and ran.out == plain.out
    (last,) = folder.iterdir()
    late = read_image(last)
    assert last == first and late.shape == early.shape and (late != early).any()


def test_colors_are_fitted_to_the_folders_own_autoencoder(model):
    folder = ModelFolder.find(str(model))
    found = previews.fitted(folder)
    assert found.weight.shape == (folder.latent_sizes[0] + 1, 3)
    assert 0 <= found.explained <= 1
    torch.testing.assert_close(found.weight, previews.fitted(folder).weight)


def test_what_is_refused(vidgen, model, tmp_path):
    words = (*SAMPLE, "--num-frames", "9", "--preview-every", "2")
    ran = vidgen(*words, "--model", str(model))
    assert ran.code == Exit.USAGE and "--preview-every has no effect here" in ran.err
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    ran = vidgen(*words, "--model", str(bare), "--checkpoint", str(tmp_path / "steps"))
    assert ran.code == Exit.BAD_INPUT and "has no autoencoder" in ran.err
    cut = (model / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()[:-8]
    (bare / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(cut)
    ran = vidgen(*words, "--model", str(bare), "--checkpoint", str(tmp_path / "steps"))
    assert ran.code == Exit.BAD_INPUT and "diffusion_pytorch_model.safetensors" in ran.err
    assert not (tmp_path / "steps").exists()
