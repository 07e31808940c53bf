import pytest
import torch

from torch_geometric_crystal.benchmark.optimizer import freeze_parameters, hold_frozen, make_optimizer
from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.nn import CGCNN, Crystalformer

SMALL = {"channels": 8, "num_layers": 2, "hidden_channels": 8}


def test_frozen_parameters_are_those_that_match_and_the_optimizer_has_the_others():
    model = CGCNN(**SMALL)
    frozen = freeze_parameters(model, ["convs.0.*", "*.node_norm.bias"])
    expected = [n for n, _ in model.named_parameters() if n.startswith("convs.0.") or n == "convs.1.node_norm.bias"]
    assert sorted(frozen) == sorted(expected)
    optimizer = make_optimizer(model, Recipe(decay_vectors=False))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for n, p in model.named_parameters() if n not in expected}


@pytest.mark.parametrize("pattern", ["conv.0.*", "blocks.1", "", "CONVS.0.*"])
def test_pattern_without_a_match_names_near_ones(pattern):
    with pytest.raises(ValueError, match=r"freeze: expected patterns of parameters' names, such as '") as error:
        freeze_parameters(CGCNN(**SMALL), [pattern])
    assert repr(pattern) in str(error.value)


def test_near_names_are_those_of_the_model():
    with pytest.raises(ValueError, match=r"'convs\.0\.\*'"):
        freeze_parameters(CGCNN(**SMALL), ["conv.0.*"])


def test_something_must_be_left_to_train():
    with pytest.raises(ValueError, match="patterns that leave parameters to train"):
        freeze_parameters(CGCNN(**SMALL), ["*"])


def test_frozen_modules_are_held_in_evaluation_mode_and_others_not():
    model = CGCNN(**SMALL)
    freeze_parameters(model, ["convs.0.*"])
    hold_frozen(model.train())
    assert not model.convs[0].edge_norm.training
    assert model.convs[1].edge_norm.training
    assert model.training


def test_frozen_decay_takes_no_statistics():
    from torch_geometric.data import Batch

    from torch_geometric_crystal.testing import small_crystals

    model = Crystalformer(channels=8, num_blocks=2, num_heads=2, num_basis=0)
    graphs = [model.neighborhood(tol=1e-2)(data) for data in small_crystals()[:3]]
    freeze_parameters(model, ["blocks.0.*"])
    hold_frozen(model.train())
    model(Batch.from_data_list(graphs))
    decays = [module for name, module in model.named_modules() if name.endswith("decay")]
    assert torch.equal(decays[0].statistics, torch.zeros(2, dtype=torch.float64))
    assert decays[1].statistics[0] > 0
