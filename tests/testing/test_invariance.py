"""The asserts pass on a model that is invariant, and each fails on one that is broken in the way it is there to see."""

import pytest
import torch
from torch import nn
from torch_geometric.utils import scatter

from torch_geometric_crystal.testing import (
    CHANGES,
    assert_all_invariances,
    assert_batch_invariant,
    assert_invariant,
    crystal_outputs,
    small_crystals,
)
from torch_geometric_crystal.transforms import PeriodicRadiusGraph

CRYSTALS = small_crystals(torch.float64)
TRICLINIC = CRYSTALS[-1]


class PairEnergy(nn.Module):
    """An energy per atom from distances; invariant in all ways, unless a subclass breaks it."""

    def neighborhood(self):
        return PeriodicRadiusGraph(6.0)

    def per_atom(self, batch):
        source, target = batch.edge_index
        pair = batch.z[source].sqrt() * batch.z[target] * torch.exp(-batch.edge_dist)
        return scatter(pair, target, dim_size=batch.num_nodes)

    def forward(self, batch):
        return scatter(self.per_atom(batch), batch.batch, dim_size=batch.num_graphs, reduce="mean").unsqueeze(-1)


class SeesDirections(PairEnergy):
    def per_atom(self, batch):
        source, target = batch.edge_index
        shift = (batch.edge_shift.double().unsqueeze(1) @ batch.cell[batch.batch[target]]).squeeze(1)
        vectors = batch.pos[source] + shift - batch.pos[target]
        return scatter(vectors[:, 0].abs() * torch.exp(-batch.edge_dist), target, dim_size=batch.num_nodes)


class SeesPositions(PairEnergy):
    def per_atom(self, batch):
        return batch.pos.norm(dim=-1)


class SeesOrder(PairEnergy):
    def per_atom(self, batch):
        place = torch.arange(batch.num_nodes) - batch.ptr[batch.batch]
        return super().per_atom(batch) * (1.0 + (place == 0))


class SeesLatticeVectors(PairEnergy):
    def forward(self, batch):
        return super().forward(batch) + batch.cell.norm(dim=-1).sum(dim=-1, keepdim=True)


class MissesImages(PairEnergy):
    def neighborhood(self):
        def nearest_cell_only(data):
            data = PeriodicRadiusGraph(6.0)(data)
            inside = (data.edge_shift.abs() <= 1).all(dim=1)
            data.edge_index, data.edge_dist = data.edge_index[:, inside], data.edge_dist[inside]
            return data

        return nearest_cell_only


class SumsAtoms(PairEnergy):
    def forward(self, batch):
        return scatter(self.per_atom(batch), batch.batch, dim_size=batch.num_graphs).unsqueeze(-1)


class SeesTheBatch(PairEnergy):
    def forward(self, batch):
        out = super().forward(batch)
        return out - out.mean()


class SeesThePlaceInTheBatch(PairEnergy):
    def forward(self, batch):
        return super().forward(batch) + torch.arange(batch.num_graphs).unsqueeze(-1)


class GivesNaN(PairEnergy):
    def forward(self, batch):
        return super().forward(batch) * float("nan")


def test_an_invariant_model_passes_all():
    assert_all_invariances(PairEnergy(), CRYSTALS, rtol=1e-9)


def test_an_invariant_model_passes_in_single_precision_by_default():
    assert_all_invariances(PairEnergy())


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (SeesDirections(), "rotation"),
        (SeesPositions(), "translation"),
        (SeesOrder(), "permutation"),
        (SeesLatticeVectors(), "another basis"),
        (SeesLatticeVectors(), "supercell"),
        (SumsAtoms(), "supercell"),
        (MissesImages(), "supercell"),
        (MissesImages(), "another basis"),
        (MissesImages(), "unwrapping"),
        (SeesPositions(), "unwrapping"),
    ],
)
def test_a_broken_model_is_seen(model, change):
    with pytest.raises(AssertionError, match=f"{change} of triclinic: relative error"):
        assert_invariant(model, TRICLINIC, CHANGES[change], rtol=1e-3, name=change)
    with pytest.raises(AssertionError, match="relative error"):
        assert_all_invariances(model, CRYSTALS, rtol=1e-3)


def test_a_model_that_sees_the_cell_of_an_atom_is_seen_by_wrapping():
    outside = CHANGES["unwrapping"](TRICLINIC)
    with pytest.raises(AssertionError, match="wrap of triclinic: relative error"):
        assert_invariant(SeesPositions(), outside, CHANGES["wrapping"], rtol=1e-3)


@pytest.mark.parametrize("model", [SeesTheBatch(), SeesThePlaceInTheBatch()])
def test_a_model_that_mixes_crystals_is_seen(model):
    with pytest.raises(AssertionError, match="batching of"):
        assert_batch_invariant(model, CRYSTALS, rtol=1e-3)
    with pytest.raises(AssertionError):
        assert_all_invariances(model, CRYSTALS, rtol=1e-3)


def test_a_model_that_is_wrong_in_one_order_of_the_batch_only_is_seen():
    class SeesTheFirstElement(PairEnergy):
        def forward(self, batch):
            return super().forward(batch) * (1.0 + (batch.z[0] == TRICLINIC.z[0]) * (batch.num_graphs > 1))

    assert_batch_invariant(SeesTheFirstElement(), CRYSTALS[1:3], rtol=1e-9)
    with pytest.raises(AssertionError, match="batching of NaCl in reverse"):
        assert_batch_invariant(SeesTheFirstElement(), [CRYSTALS[0], TRICLINIC], rtol=1e-3)


def test_nan_does_not_pass():
    with pytest.raises(AssertionError, match="NaN or infinite"):
        assert_invariant(GivesNaN(), TRICLINIC, CHANGES["rotation"])


def test_another_change_and_another_neighborhood_can_be_given():
    def stretch(data):
        data = data.clone()
        data.cell[:, 0] *= 1.1
        return data

    with pytest.raises(AssertionError, match="stretch of triclinic"):
        assert_invariant(PairEnergy(), TRICLINIC, stretch)
    nothing = crystal_outputs(PairEnergy(), [TRICLINIC], neighborhood=PeriodicRadiusGraph(0.1))
    assert nothing.tolist() == [[0.0]]


def test_outputs_are_those_of_evaluation_and_the_mode_is_put_back():
    class Dropping(PairEnergy):
        def forward(self, batch):
            assert not torch.is_grad_enabled()
            return torch.nn.functional.dropout(super().forward(batch), 0.5, self.training)

    model = Dropping().train()
    assert_invariant(model, TRICLINIC, CHANGES["rotation"], rtol=1e-9)
    assert model.training
    assert not crystal_outputs(model.eval(), CRYSTALS).requires_grad
    assert not model.training


@pytest.mark.parametrize("output", [torch.tensor(1.0), torch.ones(3, 1), None])
def test_a_model_without_one_row_per_crystal_is_refused(output):
    class Constant(PairEnergy):
        def forward(self, batch):
            return output

    with pytest.raises(AssertionError, match="expected one row for each of 2 crystals"):
        crystal_outputs(Constant(), CRYSTALS[:2])


def test_one_crystal_makes_no_batch():
    with pytest.raises(ValueError, match="crystals: expected two or more, received 1"):
        assert_batch_invariant(PairEnergy(), CRYSTALS[:1])
