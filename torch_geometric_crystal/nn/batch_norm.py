"""Batch normalisation for batches of any number of rows."""

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    r""":class:`torch.nn.BatchNorm1d` that also trains on a batch of one row, or of none.

    .. math::
        \mathbf{x}^{\prime} = \frac{\mathbf{x} - \boldsymbol{\mu}}{\sqrt{\boldsymbol{\sigma}^2 + \epsilon}} \odot
        \boldsymbol{\gamma} + \boldsymbol{\beta}

    In training :math:`\boldsymbol{\mu}` and :math:`\boldsymbol{\sigma}^2` are those of the batch. Fewer than two rows
    have no spread to normalise by: the running statistics are then used, as in evaluation, and left as they are. A
    graph without edges or an atom with a single one does this.

    Shapes:
        - **input, output:** :math:`(n, C)`
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised rows."""
        if x.size(0) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
