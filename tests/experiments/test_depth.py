"""Likeness of states and sizes of gradients are what they say, and the variants of the model differ as they should."""

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.testing import small_crystals

CROWD = torch.tensor([0, 0, 0, 1, 1, 2])
SMALL = {"channels": 16, "num_blocks": 4, "num_heads": 2, "num_basis": 8}


def test_similarity_is_the_mean_cosine_over_pairs_of_a_crystal():
    from collapse import similarity

    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = torch.nn.functional.normalize(x, dim=1)
    first = (unit[0] @ unit[1] + unit[0] @ unit[2] + unit[1] @ unit[2]) / 3
    expected = (first + unit[3] @ unit[4]) / 2  # the crystal of one atom does not count
    assert similarity(x, CROWD) == pytest.approx(float(expected))
    assert similarity(torch.ones(6, 3) * torch.arange(1, 7)[:, None], CROWD) == pytest.approx(1.0)


def test_share_within_crystals_is_that_of_the_sums_of_squares():
    from collapse import share_within

    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    members = [x[:3], x[3:5], x[5:]]
    within = sum(float((part - part.mean(0)).square().sum()) for part in members)
    between = sum(len(part) * float((part.mean(0) - x.mean(0)).square().sum()) for part in members)
    assert share_within(x, CROWD) == pytest.approx(within / (within + between), rel=1e-6)
    alike = torch.randn(3, 5)[CROWD]
    assert share_within(alike, CROWD) == pytest.approx(0.0, abs=1e-12)


def test_variants_differ_in_norms_and_in_the_size_of_their_weights():
    from depth_variants import DepthVariant

    sizes = {}
    for variant in ("paper", "layer-norm", "xavier"):
        torch.manual_seed(0)
        model = DepthVariant(variant, **SMALL)
        assert model.config()["variant"] == variant
        block = getattr(model.blocks[0], "block", model.blocks[0])
        sizes[variant] = float(block.expand.weight.detach().abs().max())
        norms = sum(isinstance(module, torch.nn.LayerNorm) for module in model.modules())
        assert norms == (8 if variant == "layer-norm" else 0)
    assert sizes["paper"] == pytest.approx(0.67 * 4**-0.25 * sizes["xavier"], rel=0.02)
    assert sizes["layer-norm"] == pytest.approx(sizes["paper"], rel=0.02)


def test_the_states_of_the_blocks_end_in_those_that_the_model_pools():
    from collapse import block_states, gradient_norms
    from depth_variants import DepthVariant

    torch.manual_seed(0)
    model = DepthVariant("layer-norm", **SMALL)
    batch = Batch.from_data_list([model.neighborhood()(data) for data in small_crystals()[:4]])
    batch.y = torch.ones(4, 1)
    norms = gradient_norms(model.train(), batch)
    assert len(norms) == 4
    assert min(norms) > 0
    states = block_states(model.eval(), batch)
    assert len(states) == 5
    torch.testing.assert_close(states[-1], model.encode(model.gather(batch)))


def test_the_training_error_is_that_of_the_last_epoch(tmp_path):
    from depth import last_train_loss

    (tmp_path / "history.csv").write_text("epoch,train_loss,lr\n1,0.75,0.1\n2,0.5,0.1\n")
    assert last_train_loss(tmp_path) == 0.5


def test_the_quick_run_has_errors_and_columns_for_each_depth(run_quickly):
    figures = run_quickly("depth")
    rows, findings = figures["rows"], figures["findings"]
    assert len(rows) == 2 * (2 + 2)
    for row in rows:
        assert len(row["similarity"]) == row["blocks"] + 1
        assert len(row["gradients_start"]) == len(row["gradients_end"]) == row["blocks"]
        assert all(-1 <= value <= 1 for value in row["similarity"])
        assert all(0 <= value <= 1 for value in row["share_within"])
        assert row["train_loss"] > 0
    assert [d["first"]["blocks"] for d in findings["less_than_reference"]] == [1]
    assert [d["first"]["variant"] for d in findings["less_than_paper"]] == ["layer-norm", "xavier"]
