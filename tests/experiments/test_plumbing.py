"""Trials are kept and continued, settings are read, spreads and intervals are right."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.config import RunConfig

SMALL = {"channels": 16, "num_blocks": 1, "num_heads": 2, "num_basis": 8}


def _trials(seeds=(0, 1)):
    from crystals import bundled_parts
    from trials import Trial

    settings = {
        "data": "flla_2015",
        "targets": ["formation_energy_per_atom"],
        "model_options": SMALL,
        "neighborhood": {"cutoff": 4.0},
        "recipe": {"epochs": 1, "averaging_epochs": 0},
        "device": "cpu",
    }
    few = partial(bundled_parts, train_size=20, keep=_is_small)
    return [
        Trial({"blocks": 1, "seed": seed}, RunConfig.from_dict(settings | {"seed": seed}), few, _parameters)
        for seed in seeds
    ]


def _is_small(data):
    return data.num_nodes <= 3


def _parameters(model, parts):
    return {"tensors": sum(1 for _ in model.parameters()), "trained_on": len(parts.parts["train"])}


def test_trials_give_a_row_each_and_are_not_run_again(tmp_path):
    from trials import run_trials

    rows = run_trials(_trials(), tmp_path)
    assert [row["seed"] for row in rows] == [0, 1]
    assert all(row["trained_on"] == 20 and row["tensors"] > 5 and row["test_mae"] > 0 for row in rows)
    assert rows[0]["mean_mae"] == rows[1]["mean_mae"] > 0
    changed = tmp_path / "blocks=1-seed=0" / "row.json"
    changed.write_text(changed.read_text().replace('"test_mae": ', '"test_mae": 1000'))
    again = run_trials(_trials(), tmp_path)
    assert again[0]["test_mae"] >= 1000  # read, not trained
    assert again[1] == rows[1]


def test_trials_with_other_settings_are_refused_the_old_row(tmp_path):
    from trials import run_trials

    (trial,) = _trials([0])
    run_trials([trial], tmp_path / "a")
    changed = dataclasses.replace(
        trial, config=dataclasses.replace(trial.config, recipe=dataclasses.replace(trial.config.recipe, epochs=2))
    )
    assert run_trials([changed], tmp_path / "a")[0]["epochs"] == 2


def test_trials_of_the_same_labels_are_refused(tmp_path):
    from trials import run_trials

    with pytest.raises(ValueError, match="same labels"):
        run_trials(_trials([0, 0]), tmp_path)


def test_smaller_training_parts_are_among_larger_ones():
    from crystals import bundled_parts

    config = _trials([0])[0].config
    ids = [
        {data.structure_id for data in bundled_parts(config, size, _is_small).parts["train"]} for size in (10, 20, None)
    ]
    assert ids[0] < ids[1] < ids[2]
    with pytest.raises(ValueError, match="train_size"):
        bundled_parts(config, 10**6)


def test_own_crystals_of_one_group_stay_together():
    from crystals import bundled_parts, own_parts

    config = _trials([0])[0].config
    crystals = bundled_parts(config, 40, _is_small).parts["train"]
    parts = own_parts(config, crystals, "energy", "eV", group=[k // 4 for k in range(40)]).parts
    assert sum(map(len, parts.values())) == 40
    place = {data.structure_id: k // 4 for k, data in enumerate(crystals)}
    groups = {part: {place[data.structure_id] for data in members} for part, members in parts.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["val"]
    assert min(map(len, groups.values())) >= 1


def test_quick_settings_change_only_what_is_there(tmp_path):
    from experiment import read_settings

    path = tmp_path / "some.yaml"
    path.write_text("seeds: [0, 1]\nepochs: 9\nquick:\n  epochs: 1\n")
    assert read_settings(path, False) == {"seeds": [0, 1], "epochs": 9}
    assert read_settings(path, True) == {"seeds": [0, 1], "epochs": 1}
    path.write_text("seeds: [0]\nquick:\n  epoch: 1\n")
    with pytest.raises(ValueError, match="epoch"):
        read_settings(path, True)


def test_spread_over_seeds():
    from summary import over_seeds, paired_difference

    rows = [
        {"model": model, "seed": seed, "test_mae": base + step}
        for model, base in (("a", 1.0), ("b", 2.0))
        for seed, step in enumerate((0.0, 0.1, 0.2))
    ]
    assert over_seeds(rows, ["model"])[0] == {"model": "a", "mean": 1.1, "std": 0.1, "number": 3}
    difference = paired_difference(rows, {"model": "a"}, {"model": "b"})
    assert difference["mean"] == -1.0
    assert difference["resolved"] is True
    with pytest.raises(ValueError, match="same seed"):
        paired_difference(rows, {"model": "a"}, {"model": "c"})


def test_interval_of_a_mean_holds_it_as_often_as_it_says():
    from summary import student_interval

    generator = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in (student_interval(generator.normal(size=3)) for _ in range(2000))]
    assert 0.93 < np.mean(held) < 0.97
    assert student_interval([1.0]) == (None, None)


def test_a_power_law_is_found():
    from summary import power_law

    generator = np.random.default_rng(0)
    sizes = [100 * 2**k for k in range(6) for _ in range(3)]
    errors = [3.0 * size**-0.4 * math.exp(0.02 * generator.normal()) for size in sizes]
    found = power_law(sizes, errors)
    assert found["exponent"] == pytest.approx(0.4, abs=0.02)
    assert found["low"] < found["exponent"] < found["high"]
    with pytest.raises(ValueError, match="two sizes"):
        power_law([100, 100], [1.0, 2.0])
