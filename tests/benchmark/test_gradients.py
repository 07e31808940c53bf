"""Training through torch.compile and from CUDA graphs: the same run, and refusals that name the setting."""

import dataclasses

import pytest
import torch
from torch._dynamo.utils import counters

from tests.nn.test_cuda_graphs import StandIn
from torch_geometric_crystal.benchmark.checkpoint import read_checkpoint
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.gradients import Gradients
from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.benchmark.training import fit
from torch_geometric_crystal.nn import CUDAGraphedGradients
from torch_geometric_crystal.testing import assert_close_relative, small_crystals

# torch's own tracing of an autograd.Function makes an instance of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.* should not be:DeprecationWarning")

OPTIONS = {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 8}


@pytest.fixture
def eager_backend(monkeypatch):
    """torch.compile without code generation, which would take a minute."""
    compile_model = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_model(model, backend="eager", **options))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(output, resume=False, epochs=3, **settings):
    # Not AdamW: the keys' biases have no gradient but rounding, which it would blow up.
    recipe = Recipe(epochs=epochs, batch_size=3, averaging_epochs=0, optimizer="sgd", lr=1e-2)
    config = RunConfig(model="crystalformer", model_options=OPTIONS, device="cpu", recipe=recipe, **settings)
    model = build_run_model(config, ["energy"], ["eV"])
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in small_crystals()]
    for index, graph in enumerate(graphs):
        graph.y = torch.tensor([[float(index % 4)]])
    fit(model, graphs[:8], graphs[8:], config, model.card, output, resume=resume)
    return read_checkpoint(output / "last.ckpt")["state_dict"]


def test_compiled_run_is_the_eager_run_and_is_resumed_to_the_same_bits(eager_backend, tmp_path):
    plain = run(tmp_path / "plain")
    assert counters["stats"]["unique_graphs"] == 0
    compiled = run(tmp_path / "compiled", compile=True)
    assert counters["stats"]["unique_graphs"] in (2, 3)  # training, evaluation, and one more for a batch of one crystal
    run(tmp_path / "parts", compile=True, epochs=1)
    resumed = run(tmp_path / "parts", compile=True, resume=True)
    for name, value in plain.items():
        assert torch.equal(compiled[name], value), name
        assert torch.equal(resumed[name], compiled[name]), name


def test_graphed_run_is_the_eager_run(monkeypatch, tmp_path):
    plain = run(tmp_path / "plain")
    record = StandIn()
    start = Gradients.__init__

    def with_stand_in(self, model, module, fabric, config, objective):
        start(self, model, module, fabric, config, objective)
        self._graphed = CUDAGraphedGradients(model, self.loss, record=record)

    monkeypatch.setattr(Gradients, "__init__", with_stand_in)
    graphed = run(tmp_path / "graphed")
    assert record.recorded > 0
    for name, value in plain.items():
        assert_close_relative(graphed[name], value, rtol=1e-4)


def test_cuda_graphs_without_a_gpu_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cuda_graphs: expected a CUDA device, received 'cpu'"):
        run(tmp_path, cuda_graphs=True)


def test_cuda_graphs_of_another_model_are_refused(tiny, make_config):
    config = dataclasses.replace(make_config(), cuda_graphs=True)
    with pytest.raises(ValueError, match="cuda_graphs: expected a Crystalformer, received 'TinyModel'"):
        Gradients(tiny(), tiny(), None, config, None)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="compile, cuda_graphs: expected one of them at most"):
        RunConfig(compile=True, cuda_graphs=True)
    with pytest.raises(ValueError, match="compile: expected true or false"):
        RunConfig(compile="yes")
    assert RunConfig.from_dict(RunConfig(compile=True).to_dict()).compile
