"""Decoding in tiles: where tiles lie, that they add up, how far off they are, and what is refused;
and decoding chunk by chunk, which is not an approximation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidgen.errors import UsageError
from vidgen.nn.causal_vae import CausalVAE, CausalVAEConfig
from vidgen.nn.cogvideox_vae import CogVideoXAutoencoder, CogVideoXVAEConfig
from vidgen.stages.tiles import Tiles
from vidgen.systems import cogvideox, wan

WAN = CausalVAEConfig(
    channels=4, width=8, decoder_width=8, blocks=1, latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4
)
COGVIDEOX = CogVideoXVAEConfig(channels=4, widths=(8, 8, 16, 16), blocks=1, groups=4)


def latents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["wan", "cogvideox"])
def decoder(request):
    """Latents `c t h w` → chunks of frames `3 t H W`, as the stage gets them."""
    torch.manual_seed(1)
    if request.param == "wan":
        vae, system = CausalVAE(WAN), wan
    else:
        vae, system = CogVideoXAutoencoder(COGVIDEOX), cogvideox
    vae.eval().requires_grad_(False)

    def chunks(z):
        return (pixels[0] for pixels in system.decoded(vae, z[None]))

    chunks.vae = vae
    return chunks


def whole(chunks, z):
    return torch.cat(list(chunks(z)), dim=1)


# --- tiles ----------------------------------------------------------------------------------------


def repeated(z):
    """A decoder that sees one latent alone, in two chunks."""
    pixels = z[:3].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    return pixels.split([1, pixels.shape[1] - 1], dim=1)


@settings(max_examples=30)
@given(
    h=st.integers(4, 23), w=st.integers(4, 23), rows=st.integers(4, 9), columns=st.integers(4, 9)
)
def test_what_sees_nothing_beyond_a_tile_is_exact(h, w, rows, columns):
    z = latents(4, 3, h, w)
    seen = []
    made = Tiles(rows, columns, 8).decoded(z, repeated, lambda i, n: seen.append((i, n)))
    torch.testing.assert_close(made, torch.cat(repeated(z), dim=1), rtol=0, atol=1e-6)
    count = Tiles(rows, columns, 8).count(h, w)
    assert seen == [(i + 1, count) for i in range(count)]


def test_all_latents_lie_in_tiles_of_one_size():
    """And tiles that meet overlap by a quarter at least."""
    sizes = []

    def decode(z):
        sizes.append(tuple(z.shape[2:]))
        return repeated(z)

    Tiles(8, 8, 8).decoded(latents(4, 2, 14, 20), decode)
    assert sizes == [(8, 8)] * 6  # rows begin at 0 and 6, columns at 0, 6, 12
    assert Tiles(8, 8, 8).count(15, 9) == 3 * 2


def test_one_tile_is_the_whole(decoder):
    z = latents(4, 3, 6, 8)
    made = Tiles(6, 8, 8).decoded(z, decoder)
    assert Tiles(6, 8, 8).count(6, 8) == 1
    torch.testing.assert_close(made, whole(decoder, z), rtol=0, atol=1e-6)


def test_how_far_off_tiles_are(decoder):
    """Far less than what frames vary by, and not nothing: it is an approximation, and a wrong
    place, weight or order would be off by as much as frames vary."""
    z = latents(4, 3, 12, 16)
    exact = whole(decoder, z)
    made = Tiles(8, 8, 8).decoded(z, decoder)
    assert made.shape == exact.shape
    off = (made - exact).square().mean().sqrt() / exact.std()
    assert 1e-5 < off < 0.3


@pytest.mark.parametrize(
    ("width", "height", "near"), [(100, 128, "96x128"), (128, 16, "128x32"), (7, 7, "32x32")]
)
def test_sides_that_no_tile_has(width, height, near):
    with pytest.raises(UsageError, match=f"{width}x{height}") as refused:
        Tiles.of(width, height, 8)
    assert near in refused.value.next


# --- chunks ---------------------------------------------------------------------------------------


def test_chunks_of_wan_are_the_whole():
    torch.manual_seed(1)
    vae = CausalVAE(WAN).eval().requires_grad_(False)
    z = latents(1, 4, 5, 4, 6)
    parts = torch.cat(list(wan.decoded(vae, z)), dim=2)
    torch.testing.assert_close(parts, vae.decode(z, chunk=None), rtol=0, atol=1e-5)


def test_chunks_of_cogvideox_are_what_the_checkpoint_computes():
    """The chunks are part of that: statistics of norms are of a chunk. With the norms' statistics
    left out, chunks are the whole, too: all that goes from one to the next is carried over."""
    torch.manual_seed(1)
    vae = CogVideoXAutoencoder(COGVIDEOX).eval().requires_grad_(False)
    z = latents(1, 4, 7, 4, 6)
    parts = torch.cat(list(cogvideox.decoded(vae, z)), dim=2)
    torch.testing.assert_close(parts, vae.decode(z), rtol=0, atol=1e-5)
    for module in vae.modules():
        if type(module).__name__ == "GroupNorm":
            module.forward = lambda x: x
    parts = torch.cat(list(cogvideox.decoded(vae, z)), dim=2)
    torch.testing.assert_close(parts, vae.decode(z, at_once=None), rtol=1e-4, atol=1e-4)
