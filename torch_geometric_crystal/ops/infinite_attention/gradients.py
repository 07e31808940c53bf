"""What every backend's backward pass returns."""

from typing import NamedTuple

from torch import Tensor


class Gradients(NamedTuple):
    """Gradients of the inputs; `dist` and `value_encoding` are None where they were not asked for or do not exist."""

    query: Tensor
    key: Tensor
    value: Tensor
    rho: Tensor
    dist: Tensor | None
    value_encoding: Tensor | None
