"""The library's door: errors that name the argument or structure, what was expected, what came, and the remedy.

Public functions call these once; everything behind the door trusts its input.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


class InvalidStructureError(ValueError):
    """A crystal that cannot be used. The message names the structure, the fault and the remedy."""

    def __init__(self, structure_id: object, fault: str, remedy: str):
        super().__init__(f"structure {structure_id!r}: {fault}. {remedy}")
        self.structure_id = structure_id
        self.fault = fault
        self.remedy = remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.structure_id, self.fault, self.remedy)


class MissingDependencyError(ImportError):
    """An optional package is needed. The message names the extra that installs it."""

    def __init__(self, package: str, extra: str):
        super().__init__(
            f"{package!r} is needed for this but not installed. "
            f"Install it with: pip install 'torch_geometric_crystal[{extra}]'"
        )
        self.package = package
        self.extra = extra


def check_argument(condition: bool, name: str, expected: str, received: Any) -> None:
    """Raise ``ValueError`` unless `condition` holds."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, received {received!r}")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`."""
    choices = tuple(choices)
    check_argument(value in choices, name, "one of " + ", ".join(repr(c) for c in choices), value)


def check_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise unless `tensor` is a tensor of `shape`, in which ``None`` stands for any size.

    Raises:
        TypeError: if `tensor` is not a tensor.
        ValueError: if its shape differs.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, received {type(tensor).__name__}")
    if tensor.dim() != len(shape) or any(s is not None and s != t for s, t in zip(shape, tensor.shape, strict=True)):
        expected = "(" + ", ".join("*" if s is None else str(s) for s in shape) + ")"
        raise ValueError(f"{name}: expected shape {expected}, received {tuple(tensor.shape)}")
