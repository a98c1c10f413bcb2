"""encode-text → sample-keyframes → decode on a tiny model: what flows, and what is refused."""

from __future__ import annotations

import io

import pytest
import torch

from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream
from vidgen.stages.base import Compute, cpu_name
from vidgen.stages.decode import decode
from vidgen.stages.encode_text import Names, Prompt, encode_text, slug, text_ids
from vidgen.stages.encode_video import encode_video, padded
from vidgen.stages.sample_keyframes import Choices, sample_ids, sample_keyframes
from vidgen.stages.text_cache import TextCache
from vidgen.systems.base import ModelFolder

PROMPTS = [Prompt("a red ball bounces"), Prompt("a blue cube spins on green ground")]
CPU = Compute(device="cpu")


@pytest.fixture
def model(tiny_model):
    return ModelFolder.find(str(tiny_model))


@pytest.fixture
def other(other_model):
    return ModelFolder.find(str(other_model))


class Listener:
    def __init__(self):
        self.warnings, self.steps = [], []

    def warn(self, text):
        self.warnings.append(text)

    def step(self, *what):
        self.steps.append(what)


def latents(model, choices=Choices(), prompts=PROMPTS, **options):
    texts = encode_text(prompts, model)
    return list(sample_keyframes(texts, model, choices, compute=Compute("cpu", **options)))


def image(records) -> bytes:
    out = io.BytesIO()
    write_stream(records, out)
    return out.getvalue()


# --- what flows -----------------------------------------------------------------------------------


def test_text_holds_prompt_and_negative_prompt(model):
    (record,) = encode_text([Prompt("a red ball", negative="blue", seed=3)], model)
    assert record.kind == "text" and record.id == "a-red-ball"
    assert record.attrs["prompt"] == "a red ball" and record.attrs["negative_prompt"] == "blue"
    assert record.attrs["seed"] == 3
    assert record.attrs["text_encoder"] == model.text_encoder
    length, dim = record.torch("text.embeds").shape
    assert record.torch("text.mask").shape == (length,) and dim == 16
    assert record.torch("text.pooled").shape == (16,)
    (plain,) = encode_text([Prompt("a red ball")], model)
    assert plain.torch("text.negative_embeds").shape[0] == 2  # only the special tokens
    assert not torch.equal(
        plain.torch("text.negative_pooled"), record.torch("text.negative_pooled")
    )


def test_latents_keep_the_text_and_know_where_they_come_from(model):
    first, second = latents(model)
    assert first.kind == "latents" and first.id == "a-red-ball-bounces"
    assert first.torch("latents").shape == (4, 3, 2, 4)
    assert first.torch("times").tolist() == [0.0, 0.5, 1.0]
    assert first.attrs["latent_space"] == model.latent_space
    assert "text.embeds" in first
    assert [e["tool"] for e in first.log] == ["encode-text", "sample-keyframes"]
    assert first.log[-1]["model"]["sha256"] == model.sha256("transformer")
    assert first.log[-1]["attention"] == "flash"  # which torch takes on a CPU
    assert {e["device_name"] for e in first.log} == {cpu_name()} and cpu_name()
    (plain,) = latents(model, prompts=PROMPTS[:1], attention="math")
    assert plain.log[-1]["attention"] == "math"
    assert not torch.equal(first.torch("latents"), second.torch("latents"))


def test_frames_drop_what_is_spent_unless_kept(model):
    (frames,) = decode(latents(model, prompts=PROMPTS[:1]), model, compute=CPU)
    assert frames.kind == "frames"
    assert frames.torch("frames").shape == (3, 16, 32, 3)
    assert frames.torch("frames").dtype == torch.uint8
    assert "latents" not in frames and "text.embeds" not in frames and "times" in frames
    (kept,) = decode(latents(model, prompts=PROMPTS[:1]), model, keep=True, compute=CPU)
    assert "latents" in kept and "text.embeds" in kept


def test_the_same_inputs_give_the_same_bytes(model):
    assert image(decode(latents(model), model, compute=CPU)) == image(
        decode(latents(model), model, compute=CPU)
    )


def test_stages_through_bytes_equal_stages_in_one_process(model):
    """Law L5: what a shell pipe does is what one process does, byte for byte."""
    texts = image(encode_text(PROMPTS, model))
    sampled = image(sample_keyframes(read_stream(io.BytesIO(texts)), model, compute=CPU))
    piped = image(decode(read_stream(io.BytesIO(sampled)), model, compute=CPU))
    assert piped == image(decode(latents(model), model, compute=CPU))


# --- seeds ----------------------------------------------------------------------------------------


def test_a_batch_equals_its_singles(model):
    """Law L5: noise to the bit (so latents to rounding), whatever the batch."""
    seeds = Choices(seeds=(7, 8, 9, 10))
    one = latents(model, seeds, PROMPTS[:1], batch_size=1)
    four = latents(model, seeds, PROMPTS[:1], batch_size=4)
    assert [r.id for r in one] == [f"a-red-ball-bounces-s{s}" for s in (7, 8, 9, 10)]
    for a, b in zip(one, four, strict=True):
        torch.testing.assert_close(a.torch("latents"), b.torch("latents"), rtol=1e-4, atol=1e-5)


def test_a_seed_of_a_range_is_that_seed_alone(model):
    ranged = latents(model, Choices(seeds=(7, 8)), PROMPTS[:1])
    (alone,) = latents(model, Choices(seeds=(8,)), PROMPTS[:1])
    torch.testing.assert_close(
        ranged[1].torch("latents"), alone.torch("latents"), rtol=1e-4, atol=1e-5
    )


def test_seed_and_name_decide_the_noise(model):
    def sample(text="a red ball", seed=1, id=None):
        prompt = Prompt(text, id=id)
        return latents(model, Choices(seeds=(seed,)), [prompt])[0].torch("latents")

    assert torch.equal(sample(), sample())
    assert not torch.equal(sample(), sample(seed=2))
    assert not torch.equal(sample(id="a"), sample(id="b"))


def test_a_records_own_seed_counts_unless_one_is_given(model):
    prompt = [Prompt("a red ball", seed=5)]
    (own,) = latents(model, Choices(), prompt)
    (given,) = latents(model, Choices(seeds=(6,)), prompt)
    assert own.attrs["seed"] == 5 and given.attrs["seed"] == 6


def test_samples_count_from_a_records_own_seed(model):
    prompts = [Prompt("a red ball", seed=42), Prompt("a blue cube")]
    made = latents(model, Choices(num_samples=2), prompts)
    assert [r.attrs["seed"] for r in made] == [42, 43, 0, 1]
    own = zip(text_ids(prompts), [42, None], strict=True)
    assert [r.id for r in made] == sample_ids(own, Choices(num_samples=2))


def test_an_id_that_was_given_is_kept_whatever_comes_before(model):
    prompts = [Prompt("a red ball"), Prompt("a blue cube", id="a-red-ball")]
    assert [r.id for r in encode_text(prompts, model)] == ["a-red-ball-2", "a-red-ball"]


def test_guidance_and_steps_matter_and_are_logged(model):
    base = latents(model, prompts=PROMPTS[:1])[0]
    for choices, flag in (
        (Choices(guidance_scale=5.0), "--guidance-scale"),
        (Choices(num_inference_steps=5), "--steps"),
        (Choices(solver="heun"), "--solver"),
        (Choices(shift=1.0), "--shift"),
    ):
        changed = latents(model, choices, PROMPTS[:1])[0]
        assert not torch.allclose(changed.torch("latents"), base.torch("latents"), atol=1e-4), flag
        assert flag in changed.log[-1]["argv"]
    assert base.log[-1]["argv"] == ["sample-keyframes"]


# --- what is refused ------------------------------------------------------------------------------


def test_wrong_kinds_are_refused(model):
    texts = list(encode_text(PROMPTS[:1], model))
    with pytest.raises(InputError, match="holds text, this stage takes latents"):
        list(decode(texts, model))
    with pytest.raises(InputError, match="holds latents, this stage takes text"):
        list(sample_keyframes(latents(model), model))
    with pytest.raises(InputError, match="takes frames"):
        list(encode_video(texts, model))


def test_latents_of_another_autoencoder_are_refused_before_weights_load(model, other, monkeypatch):
    import vidgen.systems.world as world

    records = latents(model, prompts=PROMPTS[:1])
    monkeypatch.setattr(world, "load_autoencoder", lambda folder: pytest.fail("weights were read"))
    with pytest.raises(InputError) as caught:
        list(decode(records, other))
    assert model.latent_space in caught.value.what and other.latent_space in caught.value.what


def test_text_of_another_encoder_is_refused(model, other):
    texts = encode_text(PROMPTS, other)
    with pytest.raises(InputError, match="text is encoded by"):
        list(sample_keyframes(texts, model))


def test_an_unknown_solver_and_a_missing_device_are_usage_errors(model):
    with pytest.raises(UsageError, match="no solver `rk4`"):
        latents(model, Choices(solver="rk4"))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="sees no CUDA"):
            Compute(device="cuda").torch_device()
    with pytest.raises(UsageError, match="no device is called"):
        Compute(device="gpu9").torch_device()


# --- words ----------------------------------------------------------------------------------------


def test_unknown_words_are_named_with_the_nearest_known(model):
    heard = Listener()
    list(encode_text([Prompt("a zebra bal on the moon")], model, notify=heard))
    (warning,) = heard.warnings
    assert "zebra" in warning and "bal (near: ball" in warning and "moon" in warning
    assert " on" not in warning.partition("moon")[0]


def test_a_prompt_too_long_is_cut_and_says_so(model):
    heard = Listener()
    (record,) = encode_text([Prompt("ball " * 10_000)], model, notify=heard)
    assert "its end is cut" in heard.warnings[0]
    assert record.torch("text.embeds").shape[0] == 24
    assert len(record.id) <= 61


def test_names_are_readable_and_unique():
    names = Names()
    assert names.of(Prompt("A red ball, bouncing!")) == "a-red-ball-bouncing"
    assert names.of(Prompt("a red ball bouncing")) == "a-red-ball-bouncing-2"
    assert names.of(Prompt("x", id="mine")) == "mine"
    assert slug("") == "prompt" and slug("球") == "prompt"
    assert len(slug("word " * 100)) <= 60


def test_the_cache_gives_back_what_was_encoded(model, tmp_path, monkeypatch):
    cache = TextCache(tmp_path)
    first = image(encode_text(PROMPTS, model, cache=cache))
    import vidgen.systems.world as world

    monkeypatch.setattr(world, "load_text_tower", lambda folder: pytest.fail("was not cached"))
    assert image(encode_text(PROMPTS, model, cache=cache)) == first
    for path in tmp_path.rglob("*.safetensors"):  # damaged: made anew
        path.write_bytes(path.read_bytes()[:-3])
    monkeypatch.undo()
    assert image(encode_text(PROMPTS, model, cache=cache)) == first


# --- video in -------------------------------------------------------------------------------------


def test_frames_of_any_size_come_back_at_their_size(model):
    frames = torch.randint(0, 256, (5, 21, 35, 3), dtype=torch.uint8)
    video = Record.make("frames", "clip", {"frames": frames}, {"fps": 8.0})
    (encoded,) = encode_video([video], model, compute=CPU)
    assert encoded.torch("latents").shape == (4, 5, 3, 5)
    (back,) = decode([encoded], model, compute=CPU)
    assert back.torch("frames").shape == frames.shape


def test_padding_repeats_the_edge():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    y = padded(x, 4)
    assert y.shape == (1, 1, 4, 4)
    assert torch.equal(y[..., 2, :], y[..., 1, :]) and torch.equal(y[..., 3], y[..., 2])
