"""The last part of Crystalformer: from the atoms of a crystal to its targets, and back to the atoms."""

import torch
from torch import Tensor, nn

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.nn.readout import LEVELS, POOLINGS, pool_atoms
from torch_geometric_crystal.ops.precision import without_autocast


class PropertyHead(nn.Module):
    r"""Pooling over atoms and a perceptron with one hidden layer,

    .. math::
        \hat{\mathbf{y}} = W_2\, \mathrm{relu}(W_1 \bar{\mathbf{x}} + \mathbf{b}_1) + \mathbf{b}_2, \qquad
        \bar{\mathbf{x}} = \frac{1}{N} \sum_i \mathbf{x}_i ,

    or, with :obj:`pooling="max"`, the largest value of each hidden unit over the atoms,

    .. math::
        \hat{\mathbf{y}} = W_2 \max_i \mathrm{relu}(W_1 \mathbf{x}_i + \mathbf{b}_1) + \mathbf{b}_2 .

    Args:
        channels (int): Size of the atoms' states.
        hidden_channels (int): Size of the hidden layer.
        num_targets (int): Number of targets T.
        pooling (str, optional): :obj:`"mean"`; :obj:`"sum"` for extensive targets; or :obj:`"max"` for targets that one
            part of a crystal decides, as the highest frequency of its phonons. (default: :obj:`"mean"`)
        level (str, optional): :obj:`"crystal"`, or :obj:`"atom"` for targets of each atom, without pooling:
            :math:`\mathbf{x}_i` in place of :math:`\bar{\mathbf{x}}`. (default: :obj:`"crystal"`)

    Shapes:
        - **input:** states :math:`(N, C)`, crystal of each atom :math:`(N,)`
        - **output:** targets :math:`(B, T)` and the pooled states :math:`(B, C)`, with :obj:`"max"` the pooled hidden
          units :math:`(B, H)`; of atoms :math:`(N, T)` and :math:`(N, C)`
    """

    def __init__(
        self, channels: int, hidden_channels: int, num_targets: int, pooling: str = "mean", level: str = "crystal"
    ):
        super().__init__()
        check_choice("pooling", pooling, POOLINGS)
        check_choice("level", level, LEVELS)
        self.pooling = pooling
        self.level = level
        self.hidden = nn.Linear(channels, hidden_channels)
        self.out = nn.Linear(hidden_channels, num_targets)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.hidden.reset_parameters()
        self.out.reset_parameters()

    def forward(
        self,
        x: Tensor,
        batch: Tensor,
        num_crystals: int,
        ptr: Tensor | None = None,
        multiplicity: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return targets and pooled states. Under autocast this part stays in the weights' precision.

        Args:
            x: states of the atoms.
            batch: crystal of each atom, sorted.
            num_crystals: B.
            ptr: as in :func:`~torch_geometric_crystal.nn.readout.pool_atoms`.
            multiplicity: number of atoms that each row stands for; 1 if not given.
        """
        with without_autocast(x.device):
            x = x.to(self.hidden.weight.dtype)
            if self.level == "atom":
                return self.out(self.hidden(x).relu()), x
            if self.pooling == "max":
                pooled = pool_atoms(self.hidden(x).relu(), batch, num_crystals, "max", ptr)
                return self.out(pooled), pooled
            pooled = pool_atoms(x, batch, num_crystals, self.pooling, ptr, multiplicity)
            return self.out(self.hidden(pooled).relu()), pooled

    def atom_contributions(self, x: Tensor, batch: Tensor, num_crystals: int) -> Tensor:
        r"""Each atom's part of its crystal's targets, shape (N, T); the parts of a crystal sum to its output.

        The output is followed along the straight path from a crystal without atoms' states (:math:`\bar{x} = 0`) to
        the crystal, and every change of it is credited to the atoms in proportion to what each adds to
        :math:`\bar{x}` (Aumann and Shapley's rule; integrated gradients). A rectifier is active on one interval of the
        path, so the integral is exact. The output at :math:`\bar{x} = 0` is shared equally.

        With :obj:`pooling="max"` a hidden unit's part goes to the atom where it is largest, in equal shares if there
        are several, and :math:`\mathbf{b}_2` is shared equally.

        Raises:
            ValueError: if the targets are of atoms already.
        """
        check_argument(self.level == "crystal", "level", "'crystal', whose targets atoms share", self.level)
        count = torch.bincount(batch, minlength=num_crystals).to(x.dtype)[batch].unsqueeze(-1)
        if self.pooling == "max":
            hidden = self.hidden(x).relu()
            return _largest(hidden, batch, num_crystals) @ self.out.weight.T + self.out.bias / count
        pooled = pool_atoms(x, batch, num_crystals, self.pooling)
        at_start = self.hidden.bias
        slope = pooled @ self.hidden.weight.T  # (B, hidden): pre-activation = at_start + slope * position on the path
        crossing = (-at_start / torch.where(slope == 0, torch.ones_like(slope), slope)).clamp(0, 1)
        active = torch.where(slope > 0, 1 - crossing, crossing)
        active = torch.where(slope == 0, (at_start > 0).to(slope.dtype).expand_as(slope), active)
        part = x / count if self.pooling == "mean" else x
        change = ((part @ self.hidden.weight.T) * active[batch]) @ self.out.weight.T
        baseline = self.out(at_start.relu())
        return change + baseline / count


def _largest(x: Tensor, batch: Tensor, num_crystals: int) -> Tensor:
    """Values that are the largest of their crystal, shared by the atoms that have them; zeros elsewhere."""
    pooled = pool_atoms(x, batch, num_crystals, "max")
    largest = (x == pooled[batch]).to(x.dtype)
    shared_by = torch.zeros_like(pooled).index_add_(0, batch, largest)[batch]
    return x * largest / shared_by
