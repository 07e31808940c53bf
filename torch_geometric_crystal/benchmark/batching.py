"""Batches of crystals by number of crystals, atoms or edges."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.datasets.graph_store import OnDiskCrystals

BATCH_BY = ("crystals", "atoms", "edges")


def crystal_sizes(crystals: Sequence[Data], batch_by: str) -> list[int]:
    """Return what each crystal adds to a batch's size: 1, its atoms, or its edges.

    Raises:
        ValueError: if edges are asked for and a crystal has no ``edge_index``.
    """
    check_choice("batch_by", batch_by, BATCH_BY)
    if batch_by == "crystals":
        return [1] * len(crystals)
    if isinstance(crystals, OnDiskCrystals):
        return crystals.sizes(batch_by)
    if batch_by == "atoms":
        return [int(crystal.z.numel()) for crystal in crystals]
    if any(crystal.edge_index is None for crystal in crystals):
        raise ValueError("batch_by='edges': a crystal has no edge_index; apply model.neighborhood() first")
    return [int(crystal.edge_index.size(1)) for crystal in crystals]


class BudgetBatchSampler(Sampler[list[int]]):
    """Index batches whose summed size stays within a budget, in an order that seed and epoch alone determine.

    Crystals are taken in order (shuffled, or as they are) and a batch is closed when the next crystal would exceed the
    budget. A crystal larger than the budget makes a batch of its own. With sizes of 1 these are the usual batches, but
    for a single crystal left over at the end, which joins the batch before it (batch norm cannot train on one).

    Args:
        sizes: what each crystal adds, see :func:`crystal_sizes`.
        budget: largest sum of sizes in a batch.
        shuffle: whether to permute the crystals, anew in each epoch.
        seed: seed of the permutations.
        share: number of this process and number of processes: of each batch it takes every so many-th crystal. Where a
            batch has too few, it takes the first one's number below zero (``-1 - index``): a crystal to fill in.

    Raises:
        ValueError: if the budget is below 1.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        budget: int,
        shuffle: bool = False,
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ):
        check_argument(budget >= 1, "budget", "at least 1", budget)
        self.sizes = list(sizes)
        self.budget = budget
        self.shuffle = shuffle
        self.seed = seed
        self.share = share
        self._batches: list[list[int]] = []
        self._start = 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make the batches of an epoch, and iterate over them from number `start` on (to resume within an epoch)."""
        order = list(range(len(self.sizes)))
        if self.shuffle:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            order = torch.randperm(len(order), generator=generator).tolist()
        self._batches = self._pack(order)
        self._start = start

    def _pack(self, order: list[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        total = 0
        for index in order:
            size = self.sizes[index]
            if not batches or total + size > self.budget:
                batches.append([])
                total = 0
            batches[-1].append(index)
            total += size
        if len(batches) > 1 and len(batches[-1]) == 1 and max(self.sizes) == 1:
            batches[-2].extend(batches.pop())
        return batches

    def __iter__(self) -> Iterator[list[int]]:
        rank, size = self.share
        for batch in self._batches[self._start :]:
            yield batch[rank::size] or [-1 - batch[0]]

    def __len__(self) -> int:
        return len(self._batches) - self._start


def crystal_loader(
    crystals: Sequence[Data],
    batch_size: int,
    batch_by: str = "crystals",
    shuffle: bool = False,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> DataLoader:
    """Return a PyG ``DataLoader`` over budgeted batches; ``loader.batch_sampler.set_epoch`` chooses the epoch.

    Args:
        crystals: graphs that the model can take.
        batch_size: largest number of crystals, atoms or edges in a batch.
        batch_by: what `batch_size` counts.
        shuffle: whether to permute the crystals in each epoch.
        seed: seed of the permutations. The global random state is left alone.
        share: number of this process and number of processes, which share each batch. One for which a batch has no
            crystal gets its first one without targets.
        workers: processes that read and join batches ahead, for crystals on a disk; the batches are the same.
    """
    sampler = BudgetBatchSampler(crystal_sizes(crystals, batch_by), batch_size, shuffle, seed, share)
    generator = torch.Generator().manual_seed(seed)
    shared = crystals if share[1] == 1 else _Shared(crystals)
    return DataLoader(
        shared,  # type: ignore[arg-type]
        batch_sampler=sampler,
        generator=generator,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class _Shared(Dataset):
    """Crystals by number; below zero the crystal ``-1 - number`` with unknown targets, which adds nothing to a loss."""

    def __init__(self, crystals: Sequence[Data]):
        self.crystals = crystals

    def __len__(self) -> int:
        return len(self.crystals)

    def __getitem__(self, number: int) -> Data:
        if number >= 0:
            return self.crystals[number]
        crystal = self.crystals[-1 - number].clone()
        crystal.y = torch.full_like(crystal.y, torch.nan)
        return crystal
