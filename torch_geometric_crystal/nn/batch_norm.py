"""Batch normalisation for batches of any number of rows, in one process or several."""

from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    r""":class:`torch.nn.BatchNorm1d` that also trains on a batch of one row, or of none.

    .. math::
        \mathbf{x}^{\prime} = \frac{\mathbf{x} - \boldsymbol{\mu}}{\sqrt{\boldsymbol{\sigma}^2 + \epsilon}} \odot
        \boldsymbol{\gamma} + \boldsymbol{\beta}

    In training :math:`\boldsymbol{\mu}` and :math:`\boldsymbol{\sigma}^2` are those of the batch; with several
    processes (:mod:`torch.distributed`) those of all their batches together, on the CPU too, which
    :class:`torch.nn.SyncBatchNorm` does not serve. Fewer than two rows have no spread to normalise by: the running
    statistics are then used, as in evaluation, and left as they are. A graph without edges or an atom with a single one
    does this.

    Shapes:
        - **input, output:** :math:`(n, C)`
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised rows."""
        if self.training and _processes() > 1:
            return self._forward_together(x)
        if x.size(0) > 1 or not self.training:
            return super().forward(x)
        return self._by_running_statistics(x)

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    def _forward_together(self, x: Tensor) -> Tensor:
        """Normalise by the rows of all processes: first their mean, then the spread around it."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        number = wide.new_full((1,), wide.size(0))
        total = _SumOfAll.apply(torch.cat([wide.sum(dim=0), number]))
        count = total[-1].detach()
        if count < 2:
            return self._by_running_statistics(x)
        mean = total[:-1] / count
        difference = wide - mean
        variance = _SumOfAll.apply(difference.square().sum(dim=0)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)  # type: ignore
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), self.momentum)  # type: ignore
        normalized = difference * (variance + self.eps).rsqrt()
        return (normalized * self.weight + self.bias).to(x.dtype)


class _SumOfAll(torch.autograd.Function):
    """Sum over the processes; the gradient of each one's part is the sum of the gradients of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        total = grad[0].clone()
        torch.distributed.all_reduce(total)
        return total


def _processes() -> int:
    available = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if available else 1
