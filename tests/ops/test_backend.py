"""The choice of backend."""

import importlib.util

import pytest
import torch

from torch_geometric_crystal.ops import available_backends, choose_backend, use_backend
from torch_geometric_crystal.ops.backend import unavailable_reason
from torch_geometric_crystal.ops.cpp import extension

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def ampere(monkeypatch):
    """A GPU as far as the choice of backend looks at it."""
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.fixture
def built(monkeypatch):
    monkeypatch.setattr(extension, "why_unavailable", lambda: None)


@pytest.fixture
def not_built(monkeypatch):
    monkeypatch.setattr(extension, "why_unavailable", lambda: "not built: run `tgcrystal build`")


def test_argument_beats_context_and_context_beats_default(not_built):
    assert choose_backend() == "blocked"
    with use_backend("reference"):
        assert choose_backend() == "reference"
        assert choose_backend("blocked") == "blocked"
        with use_backend("auto"):
            assert choose_backend() == "blocked"
        assert choose_backend() == "reference"
    assert choose_backend() == "blocked"


def test_auto_takes_the_first_of_the_available_backends(ampere, built):
    assert available_backends(CUDA) == ("triton", "blocked", "reference")
    assert available_backends(CPU) == ("cpp", "blocked", "reference")
    for device in (CPU, CUDA):
        assert choose_backend("auto", device) == available_backends(device)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_on_triton_where_it_can(ampere, built, dtype):
    assert choose_backend("auto", CUDA, dtype) == "triton"
    assert choose_backend("auto", CPU, dtype) == "blocked"


def test_double_precision_runs_on_the_blocked_backend(ampere, built):
    assert choose_backend("auto", CUDA, torch.float64) == "blocked"
    assert choose_backend("auto", CPU, torch.float64) == "blocked"


def test_interpreter_is_taken_only_where_it_is_asked_for(monkeypatch, not_built):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose_backend("triton", CPU) == "triton"
    assert choose_backend("auto", CPU) == "blocked"
    assert "triton" not in available_backends(CPU)


def test_forced_backend_that_cannot_run_says_why(monkeypatch, ampere, not_built):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="'triton' cannot run here: the tensors are on the CPU"):
        choose_backend("triton", CPU)
    with pytest.raises(RuntimeError, match="written for NVIDIA GPUs, not for mps"):
        choose_backend("triton", "mps")
    with pytest.raises(RuntimeError, match=r"float32, float16 or bfloat16, not torch.float64"):
        choose_backend("triton", CUDA, torch.float64)
    with pytest.raises(RuntimeError, match="'cpp' cannot run here: not built"), use_backend("cpp"):
        choose_backend(device=CPU)
    with pytest.raises(RuntimeError, match="on cuda, and it is for the CPU"):
        choose_backend("cpp", CUDA)
    with pytest.raises(RuntimeError, match=r"take float32, not torch.float64"):
        choose_backend("cpp", CPU, torch.float64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=r"compute capability 7.5, and 8.0 is the oldest supported"):
        choose_backend("triton", CUDA)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    with pytest.raises(RuntimeError, match="written for NVIDIA GPUs"):
        choose_backend("triton", CUDA)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="Triton is not installed"):
        choose_backend("triton", CUDA)


def test_old_gpu_and_other_devices_fall_back_silently(monkeypatch, ampere):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose_backend("auto", CUDA) == "blocked"
    assert choose_backend("auto", "mps") == "blocked"


def test_pure_backends_always_run():
    assert unavailable_reason("blocked", torch.device("mps"), torch.float64) is None
    assert unavailable_reason("reference", torch.device("mps"), torch.float64) is None


def test_context_is_left_after_an_error(not_built):
    with pytest.raises(RuntimeError, match="inside"), use_backend("reference"):
        raise RuntimeError("inside")
    assert choose_backend() == "blocked"


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"backend: expected one of 'auto', 'triton', .* received 'cupy'"):
        choose_backend("cupy")
    with pytest.raises(ValueError, match="received 'cupy'"), use_backend("cupy"):
        pass
