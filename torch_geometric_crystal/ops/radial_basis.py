"""Radial bases of the value position encoding: functions of distance alone, given to the attention operation."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.ops.exponential import floored_exp_


class GaussianBasis(NamedTuple):
    r"""Gaussians on evenly spaced centres,

    .. math::
        b_k(r) = \exp\left(-\frac{(r - k c)^2}{2 c^2}\right), \qquad k = 1, \ldots, K,

    from Crystalformer (arXiv 2403.11686, appendix on the value position encoding), where :math:`c = 10\, r_0 / K`.

    Args:
        num: number of centres K.
        spacing: distance c between centres, which is also their width, in A.
    """

    num: int
    spacing: float

    def __call__(self, dist: Tensor) -> Tensor:
        """Distances of any shape (...), A, to values (..., K)."""
        offset = self._offset(dist)
        return floored_exp_((offset * offset).mul_(-0.5))

    def derivative(self, dist: Tensor, values: Tensor) -> Tensor:
        """Derivative with respect to distance, 1/A, given the values at the same distances; shape (..., K)."""
        return self._offset(dist) * values * (-1.0 / self.spacing)

    def _offset(self, dist: Tensor) -> Tensor:
        index = torch.arange(1, self.num + 1, dtype=dist.dtype, device=dist.device)
        return dist.unsqueeze(-1) / self.spacing - index


NO_BASIS = GaussianBasis(0, 1.0)
"""What operators of torch.library, which take two numbers in place of a basis, are given where there is none."""
