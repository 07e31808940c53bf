"""A crystal turned at random."""

import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_crystal.transforms.random_numbers import RandomTransform


class RandomRotate(RandomTransform):
    r"""Turn the positions and the cell of a crystal together, by a rotation drawn uniformly (Haar measure).

    .. math::
        \mathbf{p}_i \leftarrow \mathbf{p}_i \mathbf{R}^T, \qquad \mathbf{L} \leftarrow \mathbf{L} \mathbf{R}^T, \qquad
        \det \mathbf{R} = 1

    The graph stays valid, since lengths and images do not change. Vectors and tensors that the crystal carries as
    targets are not turned. The rotation is made from a unit quaternion of four normal numbers.

    Args:
        seed (int, optional): Seed of the transform's own generator, joined with the worker's in a `DataLoader`; with
            :obj:`None` torch's global generator draws. (default: :obj:`None`)
    """

    def forward(self, data: Data) -> Data:
        """Return `data` turned."""
        rotation = random_rotation(self.generator())
        data.pos = (data.pos.double() @ rotation.T.to(data.pos.device)).to(data.pos.dtype)
        data.cell = (data.cell.double() @ rotation.T.to(data.cell.device)).to(data.cell.dtype)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(seed={self.seed})"


def random_rotation(generator: torch.Generator | None) -> Tensor:
    """Draw a proper rotation uniformly, (3, 3), float64."""
    quaternion = torch.randn(4, dtype=torch.float64, generator=generator)
    w, x, y, z = (quaternion / quaternion.norm()).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
