"""Times and peaks of memory, measured in one way by all benchmarks.

Times are medians over rounds. In each round every function runs in turn, so that what disturbs the machine disturbs all
of them alike; a function shorter than `SAMPLE` runs several times in its turn. Two turns before the first round are not
counted. On the CPU each turn gives the wall time and the processor time of the process; on CUDA the time between two
events, the device idle before and after.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

SAMPLE = 0.25
"""Seconds that one turn of a function lasts at least: long enough to be its steady state, whatever ran before it."""

WARM_UP = 2


class Timing(NamedTuple):
    """Seconds of one call, a list entry for each round.

    Attributes:
        seconds: wall time on the CPU, device time on CUDA.
        processor_seconds: processor time of all threads of the process.
    """

    seconds: list[float]
    processor_seconds: list[float]

    @property
    def median(self) -> float:
        """Median of `seconds`."""
        return statistics.median(self.seconds)

    @property
    def processor_median(self) -> float:
        """Median of `processor_seconds`."""
        return statistics.median(self.processor_seconds)

    def summary(self) -> dict[str, float]:
        """Median, fastest and slowest round in milliseconds, and the number of rounds."""
        rounded = [float(f"{1e3 * value:.4g}") for value in (self.median, min(self.seconds), max(self.seconds))]
        return {"ms": rounded[0], "ms_min": rounded[1], "ms_max": rounded[2], "rounds": len(self.seconds)}


def measure(
    functions: Mapping[str, Callable[[], Any]], device: str, rounds: int = 15, budget: float = 120.0
) -> dict[str, Timing]:
    """Time functions against each other. After `budget` seconds no round begins, but there are at least three."""
    calls = {}
    for name, function in functions.items():
        for _ in range(WARM_UP - 1):
            function()
        seconds, _ = _turn(function, 1, device)
        calls[name] = max(1, min(1000, round(SAMPLE / max(seconds, 1e-9))))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    order = list(functions)
    start = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - start > budget:
            break
        for name in order:
            samples[name].append(_turn(functions[name], calls[name], device))
        order = order[1:] + order[:1]
    return {name: Timing([s[0] for s in found], [s[1] for s in found]) for name, found in samples.items()}


def median_ratio(slow: Timing, fast: Timing, processor: bool = False) -> float:
    """Median over the rounds of how many times slower `slow` was than `fast` in the same round."""
    pairs = (
        zip(slow.processor_seconds, fast.processor_seconds, strict=True)
        if processor
        else zip(slow.seconds, fast.seconds, strict=True)
    )
    return statistics.median(first / second for first, second in pairs)


def _turn(function: Callable[[], Any], calls: int, device: str) -> tuple[float, float]:
    if device == "cuda":
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        processor = time.process_time()
        start.record()
        for _ in range(calls):
            function()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) * 1e-3 / calls, (time.process_time() - processor) / calls
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - wall) / calls, (time.process_time() - processor) / calls


def profile(function: Callable[[], Any], device: str, calls: int = 5, top: int = 12) -> list[dict[str, Any]]:
    """The operators (CPU) or kernels (CUDA) that took most of the time of `function`, in milliseconds a call."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    function()
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(calls):
            function()
        if device == "cuda":
            torch.cuda.synchronize()
    attribute = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = [(event.key, getattr(event, attribute), event.count) for event in found.key_averages()]
    total = sum(microseconds for _, microseconds, _ in events) or 1.0
    events.sort(key=lambda event: -event[1])
    return [
        {
            "name": name,
            "ms": float(f"{microseconds * 1e-3 / calls:.4g}"),
            "share": round(microseconds / total, 3),
            "calls": count / calls,
        }
        for name, microseconds, count in events[:top]
    ]


def device_seconds(function: Callable[[], Any]) -> float:
    """Seconds that the kernels of one call keep a CUDA device busy, launches and gaps left out."""
    return sum(row["ms"] for row in profile(function, "cuda", top=1000)) * 1e-3


def memory_of(function: Callable[[], Any], device: str) -> dict[str, int]:
    """MiB in use before one call and at its peak: by torch's tensors on CUDA, by the whole process on the CPU.

    A process keeps memory that it no longer needs, so on the CPU this is to be asked first, in a process of its own.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
        function()
        torch.cuda.synchronize()
        return {"before_MiB": round(before), "peak_MiB": round(torch.cuda.max_memory_allocated() / 2**20)}
    before = _restartprocess_peak()
    function()
    return {"before_MiB": round(before), "peak_MiB": round(process_peak())}


def _restartprocess_peak() -> float:
    """Let the peak begin anew (Linux; elsewhere it stays that of the whole run) and return it, MiB."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")
    return process_peak()


def process_peak() -> float:
    """The most memory that this process has had, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def in_own_process(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script that prints a JSON object as its last line, with this process's search path for modules.

    Raises:
        RuntimeError: if the script fails.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{Path(script).name} {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
