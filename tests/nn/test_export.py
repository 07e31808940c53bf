"""Exported programs: the model's outputs on batches of any size, in a process that knows the operators alone."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.export import export_crystalformer, export_inputs
from torch_geometric_crystal.testing import small_crystals

FRESH = """
    import sys
    import torch
    import torch_geometric_crystal.ops
    program = torch.export.load(sys.argv[1]).module()
    for inputs, expected in torch.load(sys.argv[2]):
        torch.testing.assert_close(program(**inputs), expected, rtol=0, atol=0)
    assert "torch_geometric_crystal.nn" not in sys.modules
"""


def model_and_graphs(**options):
    model = Crystalformer(**{"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 8} | options)
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in small_crystals()]
    model(Batch.from_data_list(graphs))
    return model.eval(), graphs


@pytest.mark.parametrize(("domain", "num_basis"), [("real", 8), ("multihead", 0)])
def test_program_equals_the_model_on_other_sizes_in_a_process_without_it(domain, num_basis, tmp_path):
    model, graphs = model_and_graphs(domain=domain, num_basis=num_basis)
    one_atom = next(data for data in graphs if data.num_nodes == 1)
    batches = [Batch.from_data_list(part) for part in (graphs[:3], graphs, graphs[1:2], [one_atom])]
    program = export_crystalformer(model, batches[0])
    loaded = program.module()
    cases = [(export_inputs(model, batch), model(batch).detach()) for batch in [*batches, one_atom]]
    for inputs, expected in cases:
        assert torch.equal(loaded(**inputs), expected)
    torch.export.save(program, tmp_path / "program.pt2")
    torch.save(cases, tmp_path / "cases.pt")
    command = [sys.executable, "-c", textwrap.dedent(FRESH), tmp_path / "program.pt2", tmp_path / "cases.pt"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_exporting_leaves_the_models_mode_alone():
    model, graphs = model_and_graphs()
    for training in (True, False):
        export_crystalformer(model.train(training), Batch.from_data_list(graphs[:2]))
        assert all(module.training == training for module in model.modules())


def test_example_that_is_too_small_is_refused():
    model, graphs = model_and_graphs()
    with pytest.raises(ValueError, match="batch: expected an example of at least two crystals"):
        export_crystalformer(model, graphs[0])


def test_missing_graph_names_the_remedy():
    model, _ = model_and_graphs()
    with pytest.raises(ValueError, match=r"edge_index and edge_dist; apply model.neighborhood\(\)"):
        export_inputs(model, small_crystals()[0])
