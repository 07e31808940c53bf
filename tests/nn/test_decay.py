"""The decay's formula, its data-dependent initialisation, and the same initialisation in several processes."""

import math

import pytest
import torch
import torch.multiprocessing

from torch_geometric_crystal.nn.decay import GaussianDecay
from torch_geometric_crystal.testing import assert_close_relative


def queries(number, seed=0):
    return torch.randn(number, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def test_rho_follows_the_formula():
    decay = GaussianDecay(2, 3, (0.5, 0.3), elu_beta=0.1).double().eval()
    decay.statistics.copy_(torch.tensor([1.7, -0.2]))
    query = queries(5)
    rho = decay(query)
    for atom in range(5):
        for head, bound in enumerate((0.5, 0.3)):
            t = 1.7 * (float((decay.weight[head] * query[atom, head]).sum().detach()) - 0.2)
            z = 0.1 * t / (1 - bound)
            expected = 1 + (1 - bound) * (z if z > 0 else math.exp(z) - 1)
            assert rho[atom, head].item() == pytest.approx(expected, rel=1e-6)
    assert (rho > torch.tensor([0.5, 0.3])).all()


def test_statistics_are_taken_once_in_training_and_kept():
    decay = GaussianDecay(2, 3, (0.5, 0.5)).double()
    assert (decay.eval()(queries(20)) == 1).all()
    assert (decay.statistics == 0).all()
    decay.train()(queries(20))
    projected = (queries(20) * decay.weight).sum(-1).detach()
    assert decay.statistics[0].item() == pytest.approx(1 / projected.std().item(), rel=1e-10)
    assert decay.statistics[1].item() == pytest.approx(-projected.mean().item(), rel=1e-10)
    first = decay.statistics.clone()
    decay(queries(20, seed=1))
    assert torch.equal(decay.statistics, first)
    decay.reset_parameters()
    assert (decay.statistics == 0).all()


def test_loaded_statistics_are_kept_and_loaded_zeros_are_replaced():
    fresh, taken = (GaussianDecay(2, 3, (0.5, 0.5)).double() for _ in range(2))
    taken(queries(20))
    assert taken.settled
    fresh.load_state_dict(taken.state_dict())
    assert not fresh.settled
    fresh(queries(20, seed=1))
    assert fresh.settled
    assert torch.equal(fresh.statistics, taken.statistics)
    taken.load_state_dict(GaussianDecay(2, 3, (0.5, 0.5)).state_dict())
    taken(queries(20, seed=1))
    assert not torch.equal(fresh.statistics, taken.statistics)
    assert (taken.statistics != 0).all()


def test_equal_and_different_bounds_follow_one_formula():
    equal, different = (GaussianDecay(2, 3, bounds).double().eval() for bounds in ((0.3, 0.3), (0.3, 0.4)))
    different.load_state_dict(equal.state_dict())
    for decay in (equal, different):
        decay.statistics.copy_(torch.tensor([17.0, -0.2]))
    assert_close_relative(different(queries(50))[:, 0], equal(queries(50))[:, 0], rtol=1e-7)


@pytest.mark.parametrize("query", [queries(1)[:, :1], torch.ones(6, 1, 3, dtype=torch.float64)], ids=["one", "equal"])
def test_statistics_wait_for_a_batch_that_has_a_spread(query):
    decay = GaussianDecay(1, 3, (0.5,)).double().train()
    assert decay(query).isfinite().all()
    assert (decay.statistics == 0).all()


def _worker(rank, world_size, address, results):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    torch.manual_seed(0)
    decay = GaussianDecay(2, 3, (0.5, 0.5)).double().train()
    decay(queries(20)[:7] if rank == 0 else queries(20)[7:])
    results[rank] = decay.statistics.tolist()
    torch.distributed.destroy_process_group()


def test_two_processes_agree_on_the_statistics_of_the_whole_batch(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_worker, args=(2, f"file://{tmp_path}/store", results), nprocs=2)
        torch.manual_seed(0)
        alone = GaussianDecay(2, 3, (0.5, 0.5)).double().train()
        alone(queries(20))
        assert results[0] == results[1]
        assert results[0] == pytest.approx(alone.statistics.tolist(), rel=1e-10)


def test_bad_bounds_are_refused():
    with pytest.raises(ValueError, match="rho_min: expected 2 bounds"):
        GaussianDecay(2, 3, (0.5,))
    with pytest.raises(ValueError, match=r"query: expected shape \(\*, 2, 3\)"):
        GaussianDecay(2, 3, (0.5, 0.5))(torch.zeros(4, 3, 2))
