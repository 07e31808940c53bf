"""Which implementation an operation runs on: chosen here and nowhere else."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from torch_geometric_crystal.checks import check_choice

BACKENDS = ("auto", "triton", "cpp", "blocked", "reference")

OLDEST_COMPUTE_CAPABILITY = (8, 0)
"""NVIDIA's Ampere generation, the first whose tensor cores take tf32, in which the kernels split float32 products."""

_forced: ContextVar[str] = ContextVar("torch_geometric_crystal_backend", default="auto")


def unavailable_reason(backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend cannot run on tensors of this device and dtype, or None if it can."""
    if backend == "triton":
        return _triton_unavailable(device, dtype)
    if backend == "cpp":
        return _cpp_unavailable(device, dtype)
    return None


def available_backends(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[str, ...]:
    """The backends that can run on tensors of this device and dtype, the fastest first; ``"auto"`` takes the first.

    Triton's interpreter, which runs kernels on the CPU for tests, is not among them.
    """
    device = torch.device(device)
    return tuple(
        backend
        for backend in BACKENDS[1:]
        if unavailable_reason(backend, device, dtype) is None and not (backend == "triton" and device.type == "cpu")
    )


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every operation inside the ``with`` block on one backend.

    Args:
        backend: ``"auto"`` (the fastest that can run), ``"triton"`` (fused kernels, NVIDIA GPUs), ``"cpp"`` (compiled
            for this CPU by ``tgcrystal build``), ``"blocked"`` (pure torch, any device) or ``"reference"`` (the plain
            formula in float64, slow).

    Raises:
        ValueError: if the backend is unknown.
    """
    check_choice("backend", backend, BACKENDS)
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


@torch.compiler.assume_constant_result
def choose_backend(
    backend: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> str:
    """The backend to run: the argument of the call, else that of the innermost :func:`use_backend`, else the fastest.

    Raises:
        ValueError: if the backend is unknown.
        RuntimeError: if the backend cannot run on tensors of this device and dtype; the message says why.
    """
    backend = _forced.get() if backend is None else backend
    check_choice("backend", backend, BACKENDS)
    device = torch.device(device)
    if backend == "auto":
        return available_backends(device, dtype)[0]
    reason = unavailable_reason(backend, device, dtype)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run here: {reason}")
    return backend


def _triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install torch_geometric_crystal[kernels], Linux)"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its kernels take float32, float16 or bfloat16, not {dtype}"
    if device.type == "cpu":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return None if interpreted else "the tensors are on the CPU, where Triton runs only under TRITON_INTERPRET=1"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"its kernels are written for NVIDIA GPUs, not for {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_COMPUTE_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and 8.0 is the oldest supported"
    return None


def _cpp_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"the tensors are on {device.type}, and it is for the CPU"
    if dtype != torch.float32:
        return f"its kernels take float32, not {dtype}"
    from torch_geometric_crystal.ops.cpp import extension

    return extension.why_unavailable()
