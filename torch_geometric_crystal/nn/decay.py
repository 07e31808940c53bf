"""The width of the Gaussian decay, predicted from the query of each atom and head."""

import math
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.precision import at_least_float32


class GaussianDecay(nn.Module):
    r"""Inverse squared width of the Gaussian decay in units of the length scale, bounded from below.

    .. math::
        \rho_{ih} = 1 + (1 - b)\, \mathrm{elu}\!\left(\frac{\beta\, t_{ih}}{1 - b}\right), \qquad
        t_{ih} = g_0 (\mathbf{w}_h \cdot \mathbf{q}_{ih} + g_1), \qquad \rho > b,

    (Crystalformer, arXiv 2403.11686, section on the decay, as the authors' code has it). At the first forward pass in
    training, :math:`g_1 = -\mathrm{mean}` and :math:`g_0 = 1/\mathrm{std}` of :math:`\mathbf{w} \cdot \mathbf{q}` over
    that batch, without gradient, and they are stored: an initialisation that depends on data, not a normalisation. With
    several processes the statistics are those of all their batches together. Until then :math:`\rho = 1`. Whether they
    exist is known to Python: training waits for the device only until they do, and :func:`torch.compile` leaves their
    computation out of what it compiles after that.

    Args:
        num_heads (int): Number of heads H.
        head_dim (int): Size d of each head.
        rho_min (tuple of float): Lower bound b of each head, length H.
        elu_beta (float, optional): :math:`\beta`. (default: :obj:`0.1`)

    Shapes:
        - **input:** queries :math:`(N, H, d)`; for the statistics, how many atoms each row stands for :math:`(N,)`
        - **output:** :math:`\rho`, :math:`(N, H)`
    """

    rho_min: Tensor
    statistics: Tensor

    def __init__(self, num_heads: int, head_dim: int, rho_min: tuple[float, ...], elu_beta: float = 0.1):
        super().__init__()
        check_argument(len(rho_min) == num_heads, "rho_min", f"{num_heads} bounds, one per head", rho_min)
        check_argument(all(0 < bound < 1 for bound in rho_min), "rho_min", "bounds between 0 and 1", rho_min)
        self.elu_beta = elu_beta
        self._bound = rho_min[0] if len(set(rho_min)) == 1 else None
        self.settled = False  # whether there are statistics, as far as Python knows
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim))
        self.register_buffer("rho_min", torch.tensor(rho_min), persistent=False)
        # (g_0, g_1), in double precision as in the authors' checkpoints.
        self.register_buffer("statistics", torch.zeros(2, dtype=torch.float64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw w from a normal distribution of standard deviation d^-1/2 and forget the statistics."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.size(1)))
        nn.init.zeros_(self.statistics)
        self.settled = False

    def train(self, mode: bool = True) -> "GaussianDecay":
        """Set the mode, and look whether there are statistics if that is not known."""
        if mode and not self.settled and not self.statistics.is_meta:
            self.settled = bool(self.statistics[0] != 0)
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.settled = False

    def forward(self, query: Tensor, multiplicity: Tensor | None = None) -> Tensor:
        """Return rho, in float32 where queries are of half precision.

        Raises:
            ValueError: if `query` has another shape.
        """
        check_shape("query", query, (None, *self.weight.shape))
        weight = self.weight.to(at_least_float32(self.weight.dtype))
        projected = (query * weight).sum(-1)
        if self.training and not self.settled:
            self._take_statistics(projected, multiplicity)
        scale, shift = self.statistics.unbind()
        logit = (projected + shift) * scale
        slope = self.elu_beta
        if self._bound is None:
            rooms = 1 - self.rho_min.to(projected.dtype)
            return 1 + rooms * functional.elu(logit * (slope / rooms))
        room = 1 - self._bound
        return 1 + torch.ops.aten.elu(logit, alpha=room / slope, scale=slope, input_scale=slope / room)

    @torch.no_grad()
    def _take_statistics(self, projected: Tensor, multiplicity: Tensor | None) -> None:
        """Store the statistics if there are none yet and the batch has a spread, without a branch on either."""
        values = projected.detach().double()
        number = torch.ones_like(values) if multiplicity is None else multiplicity.unsqueeze(-1).expand_as(values)
        moments = torch.stack([number.double().sum(), (number * values).sum(), (number * values.square()).sum()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(moments)
        count, total, squares = moments.unbind()
        mean = total / count
        variance = (squares - count * mean.square()) / (count - 1)  # NaN for a single value, which has no spread
        has_spread = variance > torch.finfo(projected.dtype).eps * mean.square()
        taken = torch.stack([variance.rsqrt(), -mean])
        self.statistics.copy_(torch.where(has_spread & (self.statistics[0] == 0), taken, self.statistics))
        if not torch.compiler.is_compiling():
            self.settled = bool(self.statistics[0] != 0)

    def __repr__(self) -> str:
        num_heads, head_dim = self.weight.shape
        return f"{self.__class__.__name__}({num_heads}, {head_dim}, elu_beta={self.elu_beta})"


def decays_settled(model: nn.Module) -> bool:
    """Whether every :class:`GaussianDecay` of a model is known to have its statistics."""
    return all(module.settled for module in model.modules() if isinstance(module, GaussianDecay))
