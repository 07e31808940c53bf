"""Which implementation an operation runs on: chosen here and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch_geometric_crystal.checks import check_choice

BACKENDS = ("auto", "blocked", "reference")


def available_backends() -> tuple[str, ...]:
    """The backends that can run here, the fastest first; ``"auto"`` takes the first."""
    return tuple(backend for backend in BACKENDS if backend != "auto")


_forced: ContextVar[str] = ContextVar("torch_geometric_crystal_backend", default="auto")


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every operation inside the ``with`` block on one backend.

    Args:
        backend: ``"auto"`` (the fastest that can run), ``"blocked"`` (fast, any device) or ``"reference"`` (plain
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


def choose_backend(backend: str | None = None) -> str:
    """The backend to run: the argument of the call, else that of the innermost :func:`use_backend`, else the fastest.

    Raises:
        ValueError: if the backend is unknown.
    """
    backend = _forced.get() if backend is None else backend
    check_choice("backend", backend, BACKENDS)
    return available_backends()[0] if backend == "auto" else backend
