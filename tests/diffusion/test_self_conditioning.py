"""What is carried from call to call, in sampling and in training, by a network that tells."""

import torch

from vidgen.diffusion.guidance import cfg, only_between
from vidgen.diffusion.level import Level
from vidgen.diffusion.self_conditioning import Carried, trained


class Told:
    """Ends with what it was given plus 1, and makes that; remembers what it was given."""

    def __init__(self):
        self.seen = []
        self.one = torch.ones(1, requires_grad=True)

    def __call__(self, z, t, cond, latents):
        self.seen.append((len(z), None if latents is None else latents.clone(), cond))
        before = z.new_zeros(len(z), 1) if latents is None else latents
        out = before + self.one
        return out, out


def test_each_call_gets_what_the_one_before_ended_with_without_its_gradient():
    step = Told()
    run, z, t = Carried(step), torch.zeros(3, 1), torch.zeros(3)
    assert [run(z, t, {})[0].item() for _ in range(3)] == [1, 2, 3]
    assert [s[1] is None for s in step.seen] == [True, False, False]
    assert not step.seen[1][1].requires_grad


def test_a_batch_of_another_size_begins_anew():
    step = Told()
    run = Carried(step)
    run(torch.zeros(3, 1), torch.zeros(3), {})
    assert run(torch.zeros(2, 1), torch.zeros(2), {})[0].item() == 1


def test_where_guidance_ends_the_conditions_own_half_goes_on():
    run, cond = Carried(Told()), {"told": torch.tensor([[10.0], [20.0]])}
    run.step = lambda z, t, cond, before: (z, cond["told"] if before is None else before + 1)
    none = {"told": torch.zeros(2, 1)}
    plain = lambda z, level, cond: run(z, level.t, cond)  # noqa: E731
    denoise = only_between(cfg(plain, none, 3.0), plain, 0.5, 1.0)
    for sigma in (0.8, 0.6, 0.4):
        level = Level(*torch.full((3, 2), sigma))
        denoise(torch.zeros(2, 1), level, cond)
    assert run.latents.tolist() == [[12.0], [22.0]]


def test_in_training_the_drawn_samples_are_seen_twice_with_their_own_conditions():
    step, n = Told(), 1000
    network = trained(step, 0.5, torch.Generator().manual_seed(0))
    mark = torch.arange(float(n))[:, None]
    out = network(mark, torch.zeros(n), {"mark": mark, "none": None})
    (count, nothing, given), (whole, latents, _) = step.seen
    assert nothing is None and whole == n and 430 < count < 570
    twice = out[:, 0] == 2
    assert int(twice.sum()) == count and (out[~twice] == 1).all()
    assert torch.equal(given["mark"], mark[twice]) and given["none"] is None
    assert torch.equal(latents[:, 0], twice.float()) and not latents.requires_grad


def test_of_none_or_all_samples():
    for share, calls in ((0.0, [4]), (1.0, [4, 4])):
        step = Told()
        trained(step, share, torch.Generator().manual_seed(0))(
            torch.zeros(4, 1), torch.zeros(4), {}
        )
        assert [s[0] for s in step.seen] == calls


def test_as_many_calls_are_made_where_no_sample_is_drawn():
    """Processes that shard a network draw each for itself, and gather its weights together."""
    step, z, t = Told(), torch.zeros(2, 1), torch.zeros(2)
    network = trained(step, 0.01, torch.Generator().manual_seed(0))
    assert (network(z, t, {}) == 1).all()
    assert [s[0] for s in step.seen] == [1, 2]
