"""The width of the Gaussian decay, predicted from the query of each atom and head."""

import math

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional

from torch_geometric_crystal.checks import check_argument, check_shape


class GaussianDecay(nn.Module):
    r"""Inverse squared width of the Gaussian decay in units of the length scale, bounded from below.

    .. math::
        \rho_{ih} = 1 + (1 - b)\, \mathrm{elu}\!\left(\frac{\beta\, t_{ih}}{1 - b}\right), \qquad
        t_{ih} = g_0 (\mathbf{w}_h \cdot \mathbf{q}_{ih} + g_1), \qquad \rho > b,

    (Crystalformer, arXiv 2403.11686, section on the decay, as the authors' code has it). At the first forward pass in
    training, :math:`g_1 = -\mathrm{mean}` and :math:`g_0 = 1/\mathrm{std}` of :math:`\mathbf{w} \cdot \mathbf{q}` over
    that batch, without gradient, and they are stored: an initialisation that depends on data, not a normalisation. With
    several processes the statistics are those of all their batches together. Until then :math:`\rho = 1`.

    Args:
        num_heads (int): Number of heads H.
        head_dim (int): Size d of each head.
        rho_min (tuple of float): Lower bound b of each head, length H.
        elu_beta (float, optional): :math:`\beta`. (default: :obj:`0.1`)

    Shapes:
        - **input:** queries :math:`(N, H, d)`
        - **output:** :math:`\rho`, :math:`(N, H)`
    """

    rho_min: Tensor
    statistics: Tensor

    def __init__(self, num_heads: int, head_dim: int, rho_min: tuple[float, ...], elu_beta: float = 0.1):
        super().__init__()
        check_argument(len(rho_min) == num_heads, "rho_min", f"{num_heads} bounds, one per head", rho_min)
        check_argument(all(0 < bound < 1 for bound in rho_min), "rho_min", "bounds between 0 and 1", rho_min)
        self.elu_beta = elu_beta
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim))
        self.register_buffer("rho_min", torch.tensor(rho_min), persistent=False)
        # (g_0, g_1), in double precision as in the authors' checkpoints.
        self.register_buffer("statistics", torch.zeros(2, dtype=torch.float64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw w from a normal distribution of standard deviation d^-1/2 and forget the statistics."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.size(1)))
        nn.init.zeros_(self.statistics)

    def forward(self, query: Tensor) -> Tensor:
        """Return rho.

        Raises:
            ValueError: if `query` has another shape.
        """
        check_shape("query", query, (None, *self.weight.shape))
        projected = (query * self.weight).sum(-1)
        if self.training and float(self.statistics[0]) == 0.0:
            self._take_statistics(projected)
        scale, shift = self.statistics.to(projected.dtype)
        room = 1 - self.rho_min.to(projected.dtype)
        return 1 + room * functional.elu(self.elu_beta * (projected + shift) * scale / room)

    @torch.no_grad()
    def _take_statistics(self, projected: Tensor) -> None:
        values = projected.detach().double()
        moments = torch.stack([values.new_tensor(values.numel()), values.sum(), values.square().sum()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(moments)
        count, total, squares = moments
        if count < 2:
            return
        mean = total / count
        variance = (squares - count * mean.square()) / (count - 1)
        if variance > torch.finfo(projected.dtype).eps * mean.square():
            self.statistics.copy_(torch.stack([variance.rsqrt(), -mean]))

    def __repr__(self) -> str:
        num_heads, head_dim = self.weight.shape
        return f"{self.__class__.__name__}({num_heads}, {head_dim}, elu_beta={self.elu_beta})"
