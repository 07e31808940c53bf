"""The experiment on attention runs, and its findings are shares and differences that can be."""

import pytest


def test_the_quick_run_measures_trained_models_beside_their_controls(run_quickly, tmp_path):
    figures = run_quickly("attention_maps")
    findings = figures["findings"]
    assert (tmp_path / "attention_maps_species.png").is_file()
    assert [model["seed"] for model in findings["models"]] == [0, 1]
    assert len(figures["rows"]) == 2 * 2 * 2  # seeds, blocks, heads
    for row in figures["rows"]:
        assert 0 <= row["bond_share"] <= row["bond_share_in_range"] <= 1
        assert 0 < row["self_share"] < 1
        assert 0 < row["sigma_5"] <= row["sigma_95"] <= findings["largest_sigma"]
    initial = [e for e in findings["by_block"]["sigma_50"] if e["weights"] == "initial"]
    assert all(entry["mean"] == pytest.approx(1.4) for entry in initial)  # rho is 1 before training: sigma = r0
    assert all(d["low"] <= d["mean"] <= d["high"] for d in findings["differences"])
