"""torch.compile(fullgraph=True): the eager model's outputs and gradients, and one graph for batches of any size."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.testing import assert_close_relative, small_crystals

# torch's own tracing of an autograd.Function makes an instance of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.* should not be:DeprecationWarning")

SMALL = {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 8}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def make(seed=0, **options):
    torch.manual_seed(seed)
    model = Crystalformer(**SMALL | options)
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in small_crystals()]
    return model, [Batch.from_data_list(graphs[first:last]) for first, last in ((0, 4), (1, 4), (2, 10), (3, 8))]


def outputs_and_gradients(model, call, batch):
    out = call(batch)
    return [out, *torch.autograd.grad(out.sum(), list(model.parameters()))]


@pytest.mark.parametrize(("domain", "num_basis"), [("real", 8), ("real", 0), ("multihead", 8), ("reciprocal", 0)])
@pytest.mark.parametrize("training", [False, True])
def test_one_graph_serves_batches_of_all_sizes(domain, num_basis, training):
    model, batches = make(domain=domain, num_basis=num_basis)
    model(batches[0])
    model.train(training)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for batch in batches:
        for ours, plain in zip(
            outputs_and_gradients(model, compiled, batch), outputs_and_gradients(model, model, batch), strict=True
        ):
            assert torch.equal(ours, plain)
    assert counters["stats"]["unique_graphs"] == 1


def test_gradients_come_from_a_compiled_backward_pass():
    model, batches = make(domain="real")
    model(batches[0])
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in batches[:2]:
        for ours, plain in zip(
            outputs_and_gradients(model, compiled, batch), outputs_and_gradients(model, model, batch), strict=True
        ):
            assert_close_relative(ours, plain, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["aot_autograd"]["ok"] == 1


def test_statistics_are_taken_inside_the_graph_and_it_is_compiled_without_them_afterwards():
    (model, batches), (plain, _) = make(), make()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    decay, expected = model.blocks[0].attention.decay, plain.blocks[0].attention.decay
    for batch in batches[:2]:  # those of the first batch stay
        assert torch.equal(compiled(batch), plain(batch))
        assert torch.equal(decay.statistics, expected.statistics)
    assert not decay.settled
    assert counters["stats"]["unique_graphs"] == 1
    model.train()
    assert decay.settled
    for batch in batches:
        assert torch.equal(compiled(batch), plain(batch))
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_inductors_kernels_agree_with_the_eager_model(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, batches = make()
    model(batches[0])
    compiled = torch.compile(model.eval(), fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch in batches[:2]:
            assert_close_relative(compiled(batch), model(batch), rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["inductor"]
