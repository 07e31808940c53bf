"""Memory that training frees stays with the process."""

import contextlib
import ctypes
import subprocess
import sys
import textwrap

import pytest
import torch

from torch_geometric_crystal.benchmark import allocator, training
from torch_geometric_crystal.benchmark.allocator import keep_freed_memory
from torch_geometric_crystal.benchmark.run import build_run_model

HAS_GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

FAULTS = """
    import resource, sys, torch
    from torch_geometric_crystal.benchmark.allocator import keep_freed_memory

    if sys.argv[1] == "kept":
        assert keep_freed_memory()
    for round in range(20):
        if round == 10:  # the first ones find their place
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(12_000_000).add_(1.0)  # 48 MB
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(FAULTS), how], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.skipif(not HAS_GLIBC, reason="no glibc")
def test_large_blocks_cause_no_page_faults_once_they_are_kept():
    assert page_faults("kept") * 20 < page_faults("as it is")


def test_another_c_library_is_left_alone(monkeypatch):
    class Other:
        """Without glibc's functions."""

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Other())
    assert keep_freed_memory() is False
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.parametrize(("device", "expected"), [("cpu", [True]), ("meta", [])])
def test_training_asks_for_it_on_the_cpu_alone(device, expected, make_crystals, make_config, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "keep_freed_memory", lambda: asked.append(True))
    make_fabric = training.make_fabric

    def on_device(*arguments):
        fabric = make_fabric(*arguments)
        monkeypatch.setattr(type(fabric), "device", property(lambda _: torch.device(device)))
        return fabric

    monkeypatch.setattr(training, "make_fabric", on_device)
    crystals, config = make_crystals(4), make_config(epochs=1)
    model = build_run_model(config, ["energy"], ["eV/atom"])
    monkeypatch.setattr(training._Fit, "run", lambda self: None)
    with contextlib.suppress(ValueError):  # of Lightning, which is made to believe in another device than it has
        training.fit(model, crystals[:3], crystals[3:], config, model.card, tmp_path)
    assert asked == expected
