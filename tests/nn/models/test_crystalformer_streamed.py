import importlib

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import CGCNN, Crystalformer
from torch_geometric_crystal.nn.graph_padding import graph_sizes
from torch_geometric_crystal.ops.edge_stream import EDGES_AT_ONCE
from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import InfiniteNeighborhood

search_module = importlib.import_module("torch_geometric_crystal.ops.neighbor_search")
SIZES = {"channels": 16, "num_blocks": 2, "num_heads": 2, "num_basis": 8}
CUTOFF = 6.3


@pytest.fixture(autouse=True)
def in_many_pieces(monkeypatch):
    monkeypatch.setitem(search_module.PIECE, "cpu", 500)
    monkeypatch.setitem(EDGES_AT_ONCE, "cpu", 100)


def model_of(**options):
    torch.manual_seed(2)
    return Crystalformer(**SIZES, **options).double()


def batch_for(model, edges):
    transform = model.neighborhood(cutoff=CUTOFF, edges=edges)
    return Batch.from_data_list([transform(crystal) for crystal in small_crystals(torch.float64)])


def results(model, batch):
    """Targets, forces, stress and the gradients of the weights."""
    model.zero_grad()
    batch.pos.requires_grad_()
    batch.cell.requires_grad_()
    out = model(batch)
    out.square().sum().backward()
    return [out.detach(), batch.pos.grad, batch.cell.grad, *(weight.grad for weight in model.parameters())]


@pytest.mark.parametrize(
    "options",
    [{}, {"num_basis": 0}, {"domain": "multihead"}, {"domain": "alternating"}],
    ids=["default", "without W^E", "multihead", "alternating"],
)
def test_streamed_edges_give_the_results_of_stored_ones(options):
    torch.manual_seed(2)
    model = Crystalformer(**SIZES | options).double()
    stored, streamed = batch_for(model, "stored"), batch_for(model, "streamed")
    assert "edge_index" not in streamed
    assert len(list(model.gather(streamed).stream.pieces())) > 5
    model.train()
    model(stored)  # the decays take their statistics
    for expected, actual in zip(results(model, stored), results(model, streamed), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_the_first_batch_of_a_training_may_be_streamed():
    stored_model, streamed_model = model_of(), model_of()
    expected = stored_model.train()(batch_for(stored_model, "stored"))
    torch.testing.assert_close(streamed_model.train()(batch_for(streamed_model, "streamed")), expected)


def test_gradient_checkpointing_works_with_it():
    model = model_of()
    batch = batch_for(model, "streamed")
    model.train()(batch)
    expected = results(model, batch)
    model.gradient_checkpointing = True
    for one, other in zip(results(model, batch_for(model, "streamed")), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_the_report_on_truncation_is_that_of_stored_edges():
    model = model_of().eval()
    stored, streamed = (model.truncation_report(batch_for(model, edges)) for edges in ("stored", "streamed"))
    # The bounds beyond the radius that was searched depend on where pieces end: by half a percent at most.
    torch.testing.assert_close(streamed, stored, rtol=5e-3, atol=0.0)


def test_under_bf16_autocast_it_is_the_stored_result():
    model = model_of().float().eval()
    outs = []
    for edges in ("stored", "streamed"):
        batch = batch_for(model, edges)
        batch.pos, batch.cell = batch.pos.float(), batch.cell.float()
        if edges == "stored":
            batch.edge_dist = batch.edge_dist.float()
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            outs.append(model(batch).float())
    torch.testing.assert_close(*outs, rtol=0.02, atol=1e-3)  # eight bits


def test_a_graph_of_fixed_size_cannot_be_streamed():
    model = model_of()
    with pytest.raises(ValueError, match="stored edges"):
        graph_sizes(model.gather(batch_for(model, "streamed")))


def test_models_that_need_stored_edges_say_so():
    crystal = InfiniteNeighborhood(edges="streamed")(small_crystals()[0])
    with pytest.raises(ValueError, match="edge_index"):
        CGCNN()(crystal)
