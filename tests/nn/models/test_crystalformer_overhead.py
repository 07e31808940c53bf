"""What surrounds the attention: few operations, no waiting for the device, the same bits again, no growing memory."""

import gc
import resource
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.ops import use_backend
from torch_geometric_crystal.testing import small_crystals

WAITS = {"_local_scalar_dense", "item", "nonzero", "unique", "_unique2", "masked_select", "equal", "is_nonzero"}
NO_KERNEL = {
    "view", "unbind", "slice", "select", "detach", "t", "transpose", "expand", "_unsafe_view", "permute", "unsqueeze",
    "alias", "squeeze", "lift_fresh", "promote_types",
}  # fmt: skip


class Operations(TorchDispatchMode):
    """Names of the operations that run; what happens inside an operator of this library is not seen."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name().split("::")[1].split(".")[0])
        return function(*args, **(kwargs or {}))


def make(**options):
    torch.manual_seed(0)
    model = Crystalformer(**{"channels": 8, "num_blocks": 2, "num_heads": 2, "num_basis": 8} | options)
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in small_crystals()]
    for index, graph in enumerate(graphs):
        graph.y = torch.tensor([[float(index % 3)]])
    model(Batch.from_data_list(graphs))
    return model, graphs


def step(model, graph, optimizer):
    optimizer.zero_grad(set_to_none=True)
    model.predict(graph)[0].abs().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()


@pytest.mark.parametrize("domain", ["real", "multihead", "reciprocal"])
def test_no_step_waits_for_the_device_once_the_graph_is_read(domain):
    model, graphs = make(domain=domain)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    graph = model.gather(Batch.from_data_list(graphs))
    with Operations() as seen:
        step(model, graph, optimizer)
        with torch.no_grad():
            model.eval().predict(graph)
    assert {"addmm", "_fused_adamw_"} <= set(seen.names)
    assert not WAITS & set(seen.names)


def test_statistics_of_the_decay_are_awaited_in_the_first_step_alone():
    model, graphs = make()
    model.reset_parameters()
    graph = model.gather(Batch.from_data_list(graphs))
    waits = []
    for _ in range(2):
        with Operations() as seen:
            model.predict(graph)
        waits.append(sum(name in WAITS for name in seen.names))
    assert waits == [len(model.blocks), 0]


@pytest.mark.parametrize(("training", "most"), [(False, 14), (True, 39)])
def test_operations_of_a_block_are_few(training, most):
    counts = []
    for num_blocks in (1, 2):
        model, graphs = make(num_blocks=num_blocks)
        graph = model.train(training).gather(Batch.from_data_list(graphs))._replace(blocks=None)
        with Operations() as seen, torch.set_grad_enabled(training):
            out = model.predict(graph)[0].sum()
            if training:
                out.backward()
        counts.append(sum(name not in NO_KERNEL for name in seen.names))
    assert counts[1] - counts[0] <= most


@pytest.mark.parametrize("backend", ["blocked", "cpp"])
def test_twenty_steps_of_training_give_the_same_bits_again(backend, request):
    if backend == "cpp":
        request.getfixturevalue("with_kernels")
    runs = []
    for _ in range(2):
        with use_backend(backend):
            model, graphs = make(domain="multihead")
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
            for index in range(20):
                step(model, model.gather(Batch.from_data_list(graphs[index % 5 : index % 5 + 4])), optimizer)
        runs.append(list(model.parameters()))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_gives_the_same_bits_again():
    runs = []
    for _ in range(2):
        model, graphs = make(domain="multihead")
        model.cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        for index in range(20):
            batch = Batch.from_data_list(graphs[index % 5 : index % 5 + 4]).to("cuda")
            step(model, model.gather(batch), optimizer)
        runs.append(list(model.parameters()))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def memory():
    """Resident memory in bytes, and tensors that are alive."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize(), sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory as Linux tells it")
def test_memory_does_not_grow_over_a_thousand_steps_of_varied_batches():
    model, graphs = make(num_blocks=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    levels = []
    for index in range(1000):
        first = index % 7
        step(model, model.gather(Batch.from_data_list(graphs[first : first + 1 + index % 3])), optimizer)
        if index in (199, 999):
            levels.append(memory())
    (bytes_before, tensors_before), (bytes_after, tensors_after) = levels
    assert tensors_after <= tensors_before
    assert bytes_after - bytes_before < 8 * 2**20
