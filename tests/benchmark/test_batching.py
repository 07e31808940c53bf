import pytest
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.batching import BudgetBatchSampler, crystal_loader, crystal_sizes


def test_batches_stay_within_the_budget():
    sizes = [3, 4, 5, 2, 7, 1, 6]
    batches = list(BudgetBatchSampler(sizes, 8, shuffle=True, seed=1))
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(sum(sizes[i] for i in batch) <= 8 for batch in batches)


def test_a_crystal_larger_than_the_budget_goes_alone():
    assert list(BudgetBatchSampler([2, 9, 2, 2], 4)) == [[0], [1], [2, 3]]


def test_batches_by_count():
    assert list(BudgetBatchSampler([1] * 7, 3)) == [[0, 1, 2], [3, 4, 5, 6]]
    assert list(BudgetBatchSampler([1] * 8, 3)) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_order_follows_from_seed_and_epoch_alone():
    first, second = (BudgetBatchSampler([1] * 50, 7, shuffle=True, seed=3) for _ in range(2))
    torch.manual_seed(99)
    second.set_epoch(5)
    first.set_epoch(5)
    assert list(first) == list(second)
    second.set_epoch(6)
    assert list(first) != list(second)
    other = BudgetBatchSampler([1] * 50, 7, shuffle=True, seed=4)
    other.set_epoch(5)
    assert list(first) != list(other)


def test_epoch_can_start_in_the_middle():
    sampler = BudgetBatchSampler([1] * 20, 3, shuffle=True)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, start=4)
    assert list(sampler) == whole[4:]
    assert len(sampler) == len(whole) - 4


def test_sizes_of_crystals(make_crystals):
    crystals = make_crystals(3)
    assert crystal_sizes(crystals, "crystals") == [1, 1, 1]
    assert crystal_sizes(crystals, "atoms") == [c.z.numel() for c in crystals]
    assert crystal_sizes(crystals, "edges") == [c.edge_index.size(1) for c in crystals]


def test_edges_need_graphs():
    with pytest.raises(ValueError, match=r"apply model\.neighborhood"):
        crystal_sizes([Data(z=torch.ones(1))], "edges")


@pytest.mark.parametrize(("by", "budget", "message"), [("bonds", 3, "batch_by"), ("atoms", 0, "budget")])
def test_bad_arguments_are_named(make_crystals, by, budget, message):
    with pytest.raises(ValueError, match=message):
        crystal_loader(make_crystals(2), budget, by)


def test_loader_batches_crystals_and_leaves_the_global_random_state_alone(make_crystals):
    crystals = make_crystals(9)
    state = torch.get_rng_state()
    batches = list(crystal_loader(crystals, 6, "atoms", shuffle=True, seed=1))
    assert torch.equal(state, torch.get_rng_state())
    assert sum(batch.num_graphs for batch in batches) == 9
    assert all(batch.z.numel() <= 6 for batch in batches)


def test_shares_of_the_processes_are_the_batches(make_crystals):
    crystals = make_crystals(11)
    whole = [set(batch.structure_id) for batch in crystal_loader(crystals, 4, shuffle=True, seed=1)]
    shares = [
        [set(batch.structure_id) for batch in crystal_loader(crystals, 4, shuffle=True, seed=1, share=(rank, 2))]
        for rank in (0, 1)
    ]
    assert [first | second for first, second in zip(*shares, strict=True)] == whole
    assert [first & second for first, second in zip(*shares, strict=True)] == [set()] * len(whole)


def test_process_without_a_crystal_repeats_one_without_its_targets(make_crystals):
    crystals = make_crystals(3)
    batches = [list(crystal_loader(crystals, 1, "atoms", share=(rank, 2))) for rank in (0, 1)]
    for index, (first, second) in enumerate(zip(*batches, strict=True)):
        assert first.structure_id == second.structure_id == [f"crystal-{index}"]
        assert not bool(first.y.isnan().any())
        assert bool(second.y.isnan().all())
    assert not any(bool(crystal.y.isnan().any()) for crystal in crystals)
