"""From atoms to a crystal's targets: pooling over a crystal's atoms and the scale of the targets."""

from typing import Any

import torch
from torch import Tensor, nn

from torch_geometric_crystal.checks import check_argument, check_choice, check_shape

POOLINGS = ("mean", "sum", "max")
"""How the atoms of a crystal are pooled."""

LEVELS = ("crystal", "atom")
"""What has targets: each crystal, or each atom."""


class TargetNormalization(nn.Module):
    r"""Mean and standard deviation of each target, stored with a model's weights.

    .. math::
        \hat{y}_t = \frac{y_t - \mu_t}{s_t}, \qquad y_t = s_t \hat{y}_t + \mu_t

    with :math:`\mu_t` the mean and :math:`s_t` the standard deviation (over the population) of target :math:`t` in the
    data given to :meth:`fit`. Before that :math:`\mu_t = 0` and :math:`s_t = 1`, and the module changes nothing.

    Args:
        num_targets (int): Number of targets T.

    Shapes:
        - **forward:** standardised predictions :math:`(B, T)` to physical units :math:`(B, T)`
        - **standardize:** targets :math:`(B, T)` in physical units to standardised :math:`(B, T)`; NaN stays NaN
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_targets: int = 1):
        super().__init__()
        check_argument(num_targets >= 1, "num_targets", "a positive number", num_targets)
        self.num_targets = num_targets
        self.register_buffer("mean", torch.zeros(num_targets))
        self.register_buffer("std", torch.ones(num_targets))

    @torch.no_grad()
    def fit(self, y: Tensor) -> "TargetNormalization":
        """Take mean and standard deviation from `y`, shape (n, T), where NaN marks a missing target.

        A target with one value only, or always the same value, gets the standard deviation 1.

        Raises:
            ValueError: if `y` has another shape, holds an infinite value, or has a target without any value.
        """
        check_shape("y", y, (None, self.num_targets))
        values = y.detach().to(torch.float64)
        known = ~values.isnan()
        count = known.sum(dim=0)
        empty = (count == 0).nonzero().flatten().tolist()
        check_argument(not empty, "y", "at least one value for each target", f"none for the targets {empty}")
        check_argument(not bool(values.isinf().any()), "y", "finite values or NaN", "an infinite value")
        mean = values.nansum(dim=0) / count
        deviation = torch.where(known, values - mean, values.new_zeros(()))
        std = (deviation.square().sum(dim=0) / count).sqrt()
        rounding = torch.finfo(self.std.dtype).eps * values.nan_to_num().abs().amax(dim=0)
        std = torch.where(std > rounding, std, torch.ones_like(std))
        self.mean.copy_(mean)
        self.std.copy_(std)
        return self

    def reset(self) -> "TargetNormalization":
        """Forget the statistics: mean 0 and standard deviation 1, with which the module changes nothing."""
        self.mean.zero_()
        self.std.fill_(1.0)
        return self

    def standardize(self, y: Tensor) -> Tensor:
        """Return ``(y - mean) / std``."""
        return (y - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x * std + mean``."""
        return torch.addcmul(self.mean, x, self.std)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_targets})"


class _CrystalSum(torch.autograd.Function):
    """Sum over each crystal's atoms, without atomics on a GPU, in double precision where the device has it.

    One after the other, 10,000 atoms in single precision would leave an error of 1e-4 in their mean.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(batch, ptr)
        wide = x if x.device.type == "mps" else x.double()
        if x.is_cuda:
            total = torch.segment_reduce(wide, "sum", offsets=ptr, axis=0, unsafe=True, initial=0)
        else:
            total = wide.new_zeros(ptr.numel() - 1, x.size(1)).index_add_(0, batch, wide)
        return total.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        return _CrystalSpread.apply(grad[0], *ctx.saved_tensors), None, None


class _CrystalSpread(torch.autograd.Function):
    """Give each atom the row of its crystal: the transpose of :class:`_CrystalSum`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(batch, ptr)
        return x.index_select(0, batch)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        return _CrystalSum.apply(grad[0], *ctx.saved_tensors), None, None


def pool_atoms(
    x: Tensor,
    batch: Tensor | None,
    num_crystals: int,
    reduce: str = "mean",
    ptr: Tensor | None = None,
    multiplicity: Tensor | None = None,
) -> Tensor:
    """Sum, average or take the largest values of the atoms of each crystal; on any device the same bits each time.

    Args:
        x: per-atom values, shape (N, C).
        batch: crystal of each atom, sorted, shape (N,), int64; ``None`` if all atoms belong to one crystal.
        num_crystals: number of crystals B.
        reduce: ``"mean"``, ``"sum"`` or ``"max"``, channel by channel; a crystal without atoms gets zeros.
        ptr: crystal b has the atoms ``ptr[b]`` to ``ptr[b + 1]``, shape (B + 1,); computed if not given.
        multiplicity: number of atoms that each row stands for, shape (N,); 1 if not given.

    Returns:
        shape (B, C).
    """
    check_choice("reduce", reduce, POOLINGS)
    if batch is None:
        batch = torch.zeros(x.size(0), dtype=torch.long, device=x.device)
    if reduce == "max":
        index = batch.unsqueeze(-1).expand_as(x)
        return x.new_zeros(num_crystals, x.size(1)).scatter_reduce(0, index, x, "amax", include_self=False)
    if ptr is None:
        ptr = torch.searchsorted(batch, torch.arange(num_crystals + 1, device=batch.device))
    count = ptr.diff()
    if multiplicity is not None:
        count = torch.zeros_like(count).index_add_(0, batch, multiplicity)
        x = x * multiplicity.to(x).unsqueeze(-1)
    total = _CrystalSum.apply(x, batch, ptr)
    return total if reduce == "sum" else total / count.clamp(min=1).unsqueeze(-1)
