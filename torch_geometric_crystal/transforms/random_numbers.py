"""Random numbers of transforms, other ones in each process that loads data."""

import numpy as np
import torch
from torch.utils.data import get_worker_info
from torch_geometric.transforms import BaseTransform


class RandomTransform(BaseTransform):
    """Base of the transforms that draw numbers.

    Args:
        seed (int, optional): Seed of the transform's own generator. In the workers of a `DataLoader` it is joined with
            the worker's seed, which is another one for each worker and epoch. With :obj:`None` torch's global
            generator draws, which a `DataLoader` seeds likewise. (default: :obj:`None`)
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed
        self._worker_seed: int | None = None
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def generator(self) -> torch.Generator | None:
        """The generator to draw with in this process; None for torch's global one."""
        worker = get_worker_info()
        if self.seed is not None and worker is not None and worker.seed != self._worker_seed:
            self._worker_seed = worker.seed
            joined = np.random.SeedSequence([self.seed % 2**64, worker.seed]).generate_state(1, np.uint64)
            self._generator = torch.Generator().manual_seed(int(joined[0]))
        return self._generator
