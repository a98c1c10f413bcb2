"""`vidgen evaluate-fvd --self-test`: whether this installation computes what is known exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from vidgen.errors import VidgenError
from vidgen.metrics.report import Report, Score

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen.metrics.frechet import Moments


class Check(NamedTuple):
    """A number that is known, and what was computed."""

    name: str
    expected: float
    found: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.found - self.expected) <= self.tolerance  # a NaN does not


def checks() -> Iterator[Check]:
    """Each is known in closed form, or was computed once by other code in other arithmetic."""
    yield from _gaussians()
    yield from _samples()
    yield from _others()


def _gaussians() -> Iterator[Check]:
    import torch

    from vidgen.metrics.frechet import frechet_of_moments

    def diagonal(*values: float) -> Tensor:
        return torch.diag(torch.tensor(values, dtype=torch.float64))

    a = _moments([0, 0, 0], diagonal(1, 4, 9))
    b = _moments([1, 2, 3], diagonal(4, 9, 16))
    yield Check("Gaussians that commute: 14 + 3", 17, frechet_of_moments(a, b), 1e-6)
    turn = _rotation(20, 30, 40)
    a = _moments([0, 0, 0], turn @ diagonal(1, 2, 3) @ turn.T)
    b = _moments([0.1, 0.2, 0.3], diagonal(2, 5, 0.5))
    yield Check("Gaussians that don't", 1.9211540048, frechet_of_moments(a, b), 1e-6)


def _samples() -> Iterator[Check]:
    import numpy as np
    import torch

    from vidgen.metrics.frechet import Moments, extrapolated, frechet_distance, frechet_of_moments

    def features(seed: int, n: int, d: int, shift: float) -> Tensor:
        r = np.random.default_rng(seed)
        mix = r.standard_normal((d, d)) / math.sqrt(d)
        return torch.from_numpy(r.standard_normal((n, d)) @ mix + shift)

    x, y = features(31, 20, 64, 0), features(32, 24, 64, 0.5)
    wide = "20 and 24 samples of 64 features"
    yield Check(f"{wide}, divisor n-1", 94.7775048917, frechet_distance(x, y), 1e-6)
    yield Check(f"{wide}, divisor n", 91.4000168364, frechet_distance(x, y, "n"), 1e-6)
    merged = Moments(64)
    for part in x.split(7):
        merged.add(part)
    found = frechet_of_moments(merged, Moments.of(y))
    yield Check(f"{wide}, in batches", 94.7775048917, found, 1e-4)
    yield Check("a set and itself", 0, frechet_distance(x, x), 1e-8)
    yield Check("a set and itself, moved by 2", 256, frechet_distance(x, x + 2), 1e-8)
    p = torch.from_numpy(np.random.default_rng(777).standard_normal((2048, 32)))
    for n, known in ((64, 9.289989), (1024, 0.557765)):
        found = frechet_distance(p[:n], p[1024 : 1024 + n])
        yield Check(f"one Gaussian, {n} samples twice", known, found, 1e-6)
    fit = extrapolated(p[:1024], p[1024:], seed=0)
    yield Check("the same without end", 0, fit.intercept, 0.15)


def _others() -> Iterator[Check]:
    import torch

    from vidgen.metrics.kernel import kernel_distance
    from vidgen.metrics.prdc import prdc

    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = (x @ x.T / 8 + 1) ** 3
    n, trace = len(x), float(k.trace())
    known = -2 * (trace / n - (float(k.sum()) - trace) / (n * (n - 1))) / n
    yield Check("KVD of a set and itself, unbiased", known, kernel_distance(x, x)[0], 1e-9)
    same, far = prdc(x, x), prdc(x, x + 1000)
    for name in ("precision", "recall", "coverage"):
        yield Check(f"{name} of a set and itself", 1, getattr(same, name), 0)
        yield Check(f"{name} of sets far apart", 0, getattr(far, name), 0)


def _moments(mean: list[float], covariance: Tensor) -> Moments:
    """Those of a Gaussian, as of 1000 samples."""
    import torch

    from vidgen.metrics.frechet import Moments

    return Moments.from_tensors(
        {
            "moments.n": torch.tensor(1000),
            "moments.mean": torch.tensor(mean, dtype=torch.float64),
            "moments.scatter": 999 * covariance,
        }
    )


def _rotation(*degrees: float) -> Tensor:
    """About the axes x, y and z, which stay where they are."""
    import torch

    turn = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(degrees):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = torch.eye(3, dtype=torch.float64)
        step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
        turn = step @ turn
    return turn


def as_report(done: list[Check]) -> Report:
    return Report(
        tool="evaluate-fvd",
        settings={"self_test": True},
        inputs=[],
        scores={c.name: Score(c.found) for c in done},
        items=[{"id": c.name, **c._asdict(), "passed": c.passed} for c in done],
    )


def as_table(done: list[Check]) -> str:
    width = max(len(c.name) for c in done)
    lines = [
        f"{c.name:<{width}}  {c.expected:>15.8f}  {c.found:>15.8f}  "
        + ("ok" if c.passed else "FAILED")
        + _near(c)
        for c in done
    ]
    return "\n".join([f"{'':<{width}}  {'known':>15}  {'computed':>15}", *lines])


def _near(check: Check) -> str:
    """How far apart the two may be, where the digits shown differ."""
    same = f"{check.expected:.8f}" == f"{check.found:.8f}"
    return "" if same else f", to {check.tolerance:g}"


def require_all(done: list[Check]) -> None:
    """VidgenError, exit code 1, if one failed."""
    if failed := [c.name for c in done if not c.passed]:
        raise VidgenError(
            f"{len(failed)} of {len(done)} checks failed: {failed[0]}",
            why="numbers of this installation can't be trusted",
            next="compare torch and its linear algebra with a machine where the checks pass",
        )
