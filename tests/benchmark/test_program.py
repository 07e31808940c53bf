"""Programs of torch.export in files."""

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.program import export_program
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.nn.export import export_inputs
from torch_geometric_crystal.testing import small_crystals


def make(**options):
    settings = {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 8} | options
    config = RunConfig(model="crystalformer", model_options=settings, neighborhood={"tol": 1e-2})
    return build_run_model(config, ["energy"], ["eV"]).eval()


@pytest.mark.parametrize("domain", ["real", "reciprocal"])
def test_program_in_a_file_predicts_what_the_model_does(domain, tmp_path):
    model = make(domain=domain)
    model.normalization.fit(torch.tensor([[1.0], [4.0]]))
    export_program(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    transform = model.neighborhood(tol=1e-2)
    batch = Batch.from_data_list([transform(data) for data in small_crystals()])
    assert torch.equal(program(**export_inputs(model, batch)), model(batch))


def test_other_models_and_names_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="model: expected a crystalformer, received 'TinyModel'"):
        export_program(tiny(), tmp_path / "model.pt2")
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .pt2"):
        export_program(make(), tmp_path / "model.pt")
