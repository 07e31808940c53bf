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

    A row can stand for several like ones: with `multiplicity` mean and variance are those of all rows that the given
    ones stand for, as if each were there as often.

    Shapes:
        - **input, output:** :math:`(n, C)`, `multiplicity` :math:`(n,)`
    """

    def forward(self, x: Tensor, multiplicity: Tensor | None = None) -> Tensor:
        """Return the normalised rows."""
        if self.training and multiplicity is not None:
            return self._forward_weighted(x, multiplicity)
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
        self._update_statistics(mean, variance, count)
        normalized = difference * (variance + self.eps).rsqrt()
        return (normalized * self.weight + self.bias).to(x.dtype)

    def _forward_weighted(self, x: Tensor, multiplicity: Tensor) -> Tensor:
        weighted, mean, variance, count = _WeightedNorm.apply(x, multiplicity, self.weight, self.bias, self.eps)
        if x.size(0) < 2 and count < 2:  # two rows are enough in any case: a GPU need not be waited for
            return self._by_running_statistics(x)
        self._update_statistics(mean, variance, count)
        return weighted

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)  # type: ignore[union-attr]
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), momentum)  # type: ignore


class _WeightedNorm(torch.autograd.Function):
    """Rows normalised by mean and variance of all that they stand for, in all processes; mean, variance and number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, multiplicity: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            rows = multiplicity.to(wide)
            total = _over_processes(torch.cat([rows @ wide, rows.sum().unsqueeze(0)]))
            count = total[-1]
            mean = total[:-1] / count
            variance = _over_processes(rows @ (wide - mean).square_()) / count
            out, _, _ = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)
        ctx.save_for_backward(x, rows / count, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return out, mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        x, share, weight, mean, variance = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            # As if mean and variance were given; then what reaches them, which each row has its share of.
            grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
                grads[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
            of_variance, of_mean = _over_processes(torch.stack([grad_weight, grad_bias]))
            scale = (variance + ctx.eps).rsqrt()
            slope = of_variance * scale.square() * weight
            constant = of_mean * scale * weight - mean * slope
            shared = torch.addcmul(constant, x.to(mean.dtype), slope).mul_(share.unsqueeze(-1))
        return (grad_x - shared).to(x.dtype), None, grad_weight, grad_bias, None


def _over_processes(x: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    if _processes() > 1:
        torch.distributed.all_reduce(x)
    return x


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
