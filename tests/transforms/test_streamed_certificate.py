import importlib

import pytest
import torch

from tests.transforms.conftest import awkward_crystals
from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.ops.edge_stream import EDGES_AT_ONCE
from torch_geometric_crystal.transforms import InfiniteNeighborhood, RebuildEdges, Supercell

search_module = importlib.import_module("torch_geometric_crystal.ops.neighbor_search")

STREAMED = ("edge_cutoff", "truncation_bound", "log_tail")


@pytest.fixture
def in_many_pieces(monkeypatch):
    monkeypatch.setitem(search_module.PIECE, "cpu", 1)
    monkeypatch.setitem(EDGES_AT_ONCE, "cpu", 1)


@pytest.mark.parametrize("cutoff", [None, 4.2])
def test_in_one_piece_it_is_the_certificate_of_stored_edges(crystal, cutoff):
    stored = InfiniteNeighborhood(cutoff=cutoff)(crystal.clone())
    streamed = InfiniteNeighborhood(cutoff=cutoff, edges="streamed")(crystal)
    assert "edge_index" in stored
    assert not {"edge_index", "edge_shift", "edge_dist"} & set(streamed.keys())
    for name in STREAMED:
        torch.testing.assert_close(streamed[name], stored[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_in_many_pieces_the_tolerance_still_holds_in_every_row(crystal, in_many_pieces, tol):
    streamed = InfiniteNeighborhood(tol=tol, edges="streamed")(crystal.clone())
    assert 0.0 <= streamed.truncation_bound.item() <= tol
    again = InfiniteNeighborhood(cutoff=streamed.edge_cutoff.item())(crystal.clone())
    if again.edge_cutoff.item() == streamed.edge_cutoff.item():  # else it touches a shell of another piece's atoms
        # The tails differ by the bound beyond the radius that each listed: at most half a percent of the tolerated.
        torch.testing.assert_close(again.log_tail.exp(), streamed.log_tail.exp(), rtol=1e-2, atol=0.0)
    smallest = InfiniteNeighborhood(tol=tol)(crystal.clone()).edge_cutoff.item()
    assert streamed.edge_cutoff.item() >= smallest - 0.6  # the gaps of a piece may be nearer than those of all atoms


def test_a_supercell_in_pieces_has_the_cutoff_of_its_cell(in_many_pieces):
    cell = awkward_crystals()[0]
    single = InfiniteNeighborhood(edges="streamed")(cell.clone())
    several = InfiniteNeighborhood(edges="streamed")(Supercell((2, 1, 2))(cell.clone()))
    assert several.edge_cutoff.item() == pytest.approx(single.edge_cutoff.item(), abs=1e-9)
    # The bound beyond the explicit radius depends on the cell, and is at most half a percent of the tail.
    assert several.log_tail.max().item() == pytest.approx(single.log_tail.max().item(), abs=5e-3)


def test_stored_edges_can_be_made_of_it():
    crystal = InfiniteNeighborhood(edges="streamed")(awkward_crystals()[0])
    expected = InfiniteNeighborhood()(awkward_crystals()[0])
    rebuilt = RebuildEdges()(crystal)
    assert rebuilt.edge_index.size(1) == expected.edge_index.size(1)


def test_too_many_images_are_refused_with_streaming_as_the_remedy(monkeypatch):
    monkeypatch.setattr("torch_geometric_crystal.data.neighbors.MAX_IMAGES", 100)
    crystal = awkward_crystals()[0]
    with pytest.raises(InvalidStructureError, match="edges='streamed'"):
        InfiniteNeighborhood(edges="stored")(crystal.clone())
    streamed = InfiniteNeighborhood(edges="streamed")(crystal.clone())
    chosen = InfiniteNeighborhood()(crystal)
    assert "edge_index" not in chosen
    assert chosen.edge_cutoff.item() == streamed.edge_cutoff.item() > 0


def test_lengths_that_must_be_wrong_are_refused_rather_than_streamed(monkeypatch):
    monkeypatch.setattr("torch_geometric_crystal.data.neighbors.MAX_IMAGES", 100)
    with pytest.raises(InvalidStructureError, match="Check the lengths"):
        InfiniteNeighborhood(sigma_max=8.0)(awkward_crystals()[0])


def test_too_many_images_of_one_atom_are_refused_all_the_same():
    with pytest.raises(InvalidStructureError, match="pairs of 2 atoms and their images"):
        InfiniteNeighborhood(edges="streamed", sigma_max=30.0)(awkward_crystals()[0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"edges": "none"},
        {"edges": "streamed", "real": False, "reciprocal_sigma_min": 1.0},
        {"edges": "streamed", "domain": "auto", "reciprocal_sigma_min": 1.0},
    ],
)
def test_what_cannot_be_streamed_is_refused(arguments):
    with pytest.raises(ValueError, match="edges"):
        InfiniteNeighborhood(**arguments)


def test_the_setting_is_in_the_name_that_caches_are_keyed_by():
    assert "edges='streamed'" in repr(InfiniteNeighborhood(edges="streamed"))
    assert "edges" not in repr(InfiniteNeighborhood())
