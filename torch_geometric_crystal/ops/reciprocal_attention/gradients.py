"""What every backend's backward pass returns."""

from typing import NamedTuple

from torch import Tensor


class Gradients(NamedTuple):
    """Gradients of the inputs; `pos` and `vector` are None where they were not asked for."""

    query: Tensor
    key: Tensor
    value: Tensor
    sigma_sq: Tensor
    pos: Tensor | None
    vector: Tensor | None
