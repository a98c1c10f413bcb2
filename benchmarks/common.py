"""What the benchmarks share: timing, and saying what they ran on."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
VIDGEN = [sys.executable, "-m", "vidgen"]


@dataclass(frozen=True)
class Row:
    """One comparison: two medians, and how many times longer the first one takes."""

    what: str
    ours: str
    theirs: str
    ratio: float | None
    note: str = ""


def machine() -> dict[str, str]:
    """Processor, core count, versions: a figure means little without them."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    packages = ("torch", "transformers", "safetensors", "av", "numpy")
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"),
        "python": platform.python_version(),
        **{p: version(p) for p in packages},
    }


def keep(name: str, found: dict[str, Any], *, threads: int, **head: object) -> None:
    """Put these cases beside what that file of benchmarks/results has of others, each with what it
    ran on."""
    from importlib.metadata import version

    file = ROOT / "benchmarks" / "results" / name
    cases: dict[str, Any] = {}
    if file.is_file():
        cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    on = machine() | {"threads": str(threads), "diffusers": version("diffusers")}
    cases |= {name: {**case, "machine": on} for name, case in found.items()}
    report = {"schema": "vidgen.bench/1", **head, "cases": cases}
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def seconds(run: Callable[[], object], repeat: int = 5) -> float:
    """Median wall time of `run`, after one run that doesn't count."""
    run()
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def cpu_seconds(run: Callable[[], object]) -> float:
    """What the processes that `run` starts take of all cores together, measured once: it hardly
    depends on what else runs."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began = spent()
    run()
    return spent() - began


def interleaved(a: Callable[[], object], b: Callable[[], object], repeat: int = 5):
    """Median times of two, run in turn so that both see the same machine."""
    a(), b()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for run, taken in zip((a, b), times, strict=True):
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def shell(command: str, cwd: Path) -> None:
    """Run a shell line with `vidgen` on the PATH; a failure ends the benchmark."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
    subprocess.run(
        command, shell=True, cwd=cwd, check=True, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def peak_memory_mib() -> float:
    """Largest resident size among the finished child processes, MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def own_memory(key: str) -> int:
    """Bytes of this process in memory: `VmRSS` now, `VmHWM` at most (Linux). What `getrusage` says
    begins with the peak of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(key + ":"))
