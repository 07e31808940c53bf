import pytest
import torch
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import RandomPerturb, RandomRotate


class Turned(torch.utils.data.Dataset):
    """Four times the same crystal, transformed at each access."""

    def __init__(self, transform):
        self.transform, self.crystal = transform, small_crystals()[-1]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.transform(self.crystal.clone())


def epochs(transform, workers, number=2):
    torch.manual_seed(0)
    loader = DataLoader(Turned(transform), num_workers=workers)
    return [[batch.pos for batch in loader] for _ in range(number)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [None, 3, -1])
@pytest.mark.parametrize("transform", [RandomRotate, lambda seed: RandomPerturb(0.1, seed)], ids=["rotate", "perturb"])
def test_no_draw_is_repeated_over_workers_and_epochs(transform, seed, workers):
    drawn = [pos for epoch in epochs(transform(seed), workers) for pos in epoch]
    assert not any(torch.equal(a, b) for k, a in enumerate(drawn) for b in drawn[:k])
    again = [pos for epoch in epochs(transform(seed), workers) for pos in epoch]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_without_a_seed_torch_draws():
    crystal = small_crystals()[-1]
    torch.manual_seed(1)
    first = RandomRotate()(crystal).pos
    torch.manual_seed(1)
    assert torch.equal(RandomRotate()(crystal).pos, first)
    assert repr(RandomRotate()) == "RandomRotate(seed=None)"
