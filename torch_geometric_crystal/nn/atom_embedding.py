"""The states that atoms start from: a learned vector for each element, with or without the elements' properties."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_geometric_crystal.nn.models.element_features import element_features as tabulated_features


class AtomEmbedding(nn.Embedding):
    r"""Learned states of the elements, to which their tabulated properties may add,

    .. math::
        \mathbf{x}_i = \mathbf{e}_{Z_i} + W \mathbf{f}_{Z_i} ,

    with the 92 binary features :math:`\mathbf{f}` of CGCNN (Xie and Grossman 2018): group, period, electronegativity
    and others, in bins. With them, what is learned of one element carries over to those like it, which helps where
    crystals are few and many elements rare.

    Args:
        num_elements (int): Largest atomic number.
        channels (int): Size of the states.
        element_features (bool, optional): Whether to add :math:`W \mathbf{f}`. (default: :obj:`False`)

    Shapes:
        - **input:** atomic numbers less 1, :math:`(N,)`
        - **output:** :math:`(N, C)`
    """

    table: Tensor

    def __init__(self, num_elements: int, channels: int, element_features: bool = False):
        super().__init__(num_elements, channels)
        self.features: nn.Linear | None = None
        if element_features:
            table = torch.from_numpy(tabulated_features()[:num_elements]).to(self.weight.dtype)
            self.register_buffer("table", table, persistent=False)
            self.features = nn.Linear(table.size(1), channels, bias=False)

    def draw(self, std: float) -> None:
        """Draw the weights anew, so that both parts of a state have about the standard deviation `std`."""
        nn.init.normal_(self.weight, std=std)
        if self.features is not None:
            bits_of_an_element = float(self.table.sum(1).mean())
            nn.init.normal_(self.features.weight, std=std / bits_of_an_element**0.5)

    def forward(self, input: Tensor) -> Tensor:
        """Return the states of the atoms."""
        if input.is_cpu:
            x: Tensor = _Rows.apply(self.weight, input)
        else:
            x = super().forward(input)
        return x if self.features is None else x + self.features(F.embedding(input, self.table))


class _Rows(torch.autograd.Function):
    """Rows of a table, whose gradients are summed in double precision: torch adds one atom after the other to a row."""

    @staticmethod
    def forward(table: Tensor, index: Tensor) -> Tensor:
        return F.embedding(index, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        table, index = inputs
        ctx.save_for_backward(index)
        ctx.num_rows = table.size(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        total = grad.new_zeros(ctx.num_rows, grad.size(-1), dtype=torch.float64)
        return total.index_add(0, index.flatten(), grad.flatten(0, -2).double()).to(grad.dtype), None
