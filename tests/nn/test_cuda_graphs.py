"""Recordings: which one a batch runs on, what is copied into it, and that the results are the model's.

Where there is no GPU, a stand-in records: it keeps the function and writes what it returns into the first results.
"""

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import Crystalformer, CUDAGraphed
from torch_geometric_crystal.nn.cuda_graphs import CUDAGraphedGradients
from torch_geometric_crystal.ops import available_backends
from torch_geometric_crystal.testing import assert_close_relative, small_crystals

needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and "triton" in available_backends("cuda")), reason="needs a GPU and Triton"
)


class StandIn:
    """Like a CUDA graph: one function on fixed tensors, run again and again into the same results."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, function):
        self.recorded += 1
        results = [None if result is None else result.clone() for result in function()]

        def replay():
            for old, new in zip(results, function(), strict=True):
                if old is not None:
                    old.copy_(new)
            return results

        return replay


def loss(prediction, target):
    known = ~target.isnan()
    return torch.where(known, prediction - target.nan_to_num(), 0.0).abs().sum() / known.sum().clamp(min=1)


def make(domain="real", device="cpu"):
    torch.manual_seed(0)
    model = Crystalformer(channels=32, num_blocks=2, num_heads=4, num_basis=8, domain=domain)
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in small_crystals()]
    for index, graph in enumerate(graphs):
        graph.y = torch.tensor([[float(index)]])
    model.to(device)(Batch.from_data_list(graphs).to(device))
    return model.eval(), graphs


def batches(graphs, device="cpu"):
    parts = (graphs, graphs[2:6], graphs[:1], graphs[::-1], [*graphs, *graphs], graphs[1:2], graphs[3:7])
    return [Batch.from_data_list(list(part)).to(device) for part in parts]


@pytest.mark.parametrize("domain", ["real", "multihead"])
def test_inference_equals_the_model_whatever_ran_before(domain):
    model, graphs = make(domain)
    record = StandIn()
    graphed = CUDAGraphed(model, record=record)
    first = None
    for batch in batches(graphs):
        out = graphed(batch)
        first = out if first is None else first
        assert_close_relative(out, model(batch), rtol=1e-5)
    assert record.recorded < len(batches(graphs))
    assert len(graphed.sizes) == record.recorded
    assert_close_relative(first, model(batches(graphs)[0]), rtol=1e-5)  # a later replay does not change it


def test_single_crystal_needs_no_batch():
    model, graphs = make()
    assert_close_relative(CUDAGraphed(model, record=StandIn())(graphs[0]), model(graphs[0]), rtol=1e-5)


def test_recording_sees_new_weights():
    model, graphs = make()
    graphed = CUDAGraphed(model, record=StandIn())
    batch = batches(graphs)[0]
    before = graphed(batch)
    with torch.no_grad():
        model.head.out.bias.add_(1.0)
    assert_close_relative(graphed(batch), before + 1.0, rtol=1e-5)


def test_recording_for_another_precision_is_another_one():
    model, graphs = make()
    record = StandIn()
    graphed = CUDAGraphed(model, record=record)
    batch = batches(graphs)[0]
    plain = graphed(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, expected = graphed(batch), model(batch)
    assert record.recorded == 2
    assert_close_relative(rounded, expected, rtol=1e-3)
    assert not torch.equal(rounded, plain)
    assert torch.equal(graphed(batch), plain)


def test_recordings_beyond_the_limit_are_dropped_by_age():
    model, graphs = make()
    record = StandIn()
    graphed = CUDAGraphed(model, most=2, record=record)
    small, medium, large = (Batch.from_data_list(graphs * n) for n in (1, 3, 9))
    for batch in (small, medium, small, large):
        graphed(batch)
    assert record.recorded == 3
    graphed(small)
    assert record.recorded == 3
    graphed(medium)
    assert record.recorded == 4


def test_training_on_recordings_equals_training_without():
    trained = []
    for graphed in (False, True):
        model, graphs = make()
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        gradients = CUDAGraphedGradients(model, loss, record=StandIn())
        losses = []
        for batch in batches(graphs):
            optimizer.zero_grad(set_to_none=True)
            if graphed:
                losses.append(gradients(batch))
            else:
                losses.append(loss(model(batch), batch.y))
                losses[-1].backward()
            optimizer.step()
        assert (len(gradients.sizes) > 1) == graphed
        trained.append([torch.stack(losses), *model.parameters()])
    for plain, replayed in zip(*trained, strict=True):
        assert_close_relative(replayed, plain, rtol=1e-4)


def test_missing_targets_of_the_batch_stay_missing():
    model, graphs = make()
    graphs[1].y.fill_(float("nan"))
    batch = batches(graphs)[0]
    assert_close_relative(
        CUDAGraphedGradients(model, loss, record=StandIn())(batch), loss(model(batch), batch.y), rtol=1e-5
    )


def test_training_waits_for_the_decays_statistics():
    model, graphs = make()
    model.reset_parameters()
    with pytest.raises(ValueError, match="model: expected decays with statistics"):
        CUDAGraphedGradients(model, loss, record=StandIn())(batches(graphs)[0])


def test_model_on_the_cpu_is_refused():
    with pytest.raises(ValueError, match="model: expected a model on an NVIDIA GPU, for CUDA graphs, received 'cpu'"):
        CUDAGraphed(make()[0])


@needs_gpu
@pytest.mark.parametrize("domain", ["real", "multihead"])
def test_inference_from_cuda_graphs_equals_the_model(domain):
    model, graphs = make(domain, "cuda")
    graphed = CUDAGraphed(model)
    for batch in batches(graphs, "cuda"):
        assert_close_relative(graphed(batch), model(batch), rtol=1e-4)


@needs_gpu
def test_gradients_from_cuda_graphs_equal_those_of_autograd():
    model, graphs = make(device="cuda")
    gradients = CUDAGraphedGradients(model.train(), loss)
    for batch in batches(graphs, "cuda"):
        value = gradients(batch)
        replayed = [parameter.grad.clone() for parameter in model.parameters()]
        expected = loss(model(batch), batch.y)
        assert_close_relative(value, expected, rtol=1e-4)
        for ours, plain in zip(replayed, torch.autograd.grad(expected, list(model.parameters())), strict=True):
            assert_close_relative(ours, plain, rtol=1e-3)
