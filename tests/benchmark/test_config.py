import json

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.config import RunConfig, read_config, write_config
from torch_geometric_crystal.benchmark.recipe import Recipe, default_recipe


def test_yaml_round_trip(tmp_path):
    config = RunConfig(
        data="flla_2015",
        targets=("a", "b"),
        model_options={"num_blocks": 2},
        neighborhood={"tol": 1e-2},
        recipe=Recipe(epochs=3),
        precision="64",
        max_time=1.5,
    )
    write_config(config, tmp_path / "config.yaml")
    assert RunConfig.from_dict(read_config(tmp_path / "config.yaml")) == config


def test_recipe_by_name():
    assert RunConfig.from_dict({"recipe": "cgcnn"}).recipe == default_recipe("cgcnn")


def test_recipe_without_preset_starts_from_the_models_own():
    config = RunConfig.from_dict({"model": "cgcnn", "recipe": {"epochs": 3}})
    assert (config.recipe.epochs, config.recipe.optimizer) == (3, "sgd")
    assert RunConfig.from_dict({"model": "cgcnn"}).recipe == default_recipe("cgcnn")


def test_numpy_numbers_become_plain_ones(tmp_path):
    recipe = Recipe(lr=np.logspace(-4, -3, 3)[1], epochs=np.int64(3), betas=np.array([0.5, 0.6]))
    config = RunConfig(seed=np.int64(1), recipe=recipe, model_options={"channels": np.int32(8)})
    write_config(config, tmp_path / "c.yaml")
    assert RunConfig.from_dict(read_config(tmp_path / "c.yaml")) == config
    assert [type(value) for value in (config.seed, config.recipe.lr, config.recipe.epochs)] == [int, float, int]
    assert json.dumps(config.to_dict())


def test_precision_may_be_a_number():
    assert RunConfig.from_dict({"precision": 64}).precision == "64"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "cgcnn"}, "configuration: expected one of 'data'"),
        ({"precision": "8"}, "precision"),
        ({"seed": -1}, "seed"),
        ({"data": [1, 2]}, "data: expected the name of a bundled set or a path .*, received 'list'"),
        ({"max_time": 0}, "max_time"),
        ({"loader_workers": -1}, "loader_workers"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction, test_fraction: expected a share"),
        ({"val_fraction": 1.0, "test_fraction": 0.0}, "val_fraction: expected a share .*, received 1.0"),
        ({"val_fraction": 0.1, "test_fraction": -0.1}, "test_fraction: expected a share .*, received -0.1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "not a YAML file"), ("- 1", "expected 'name: value' lines, received list")]
)
def test_a_file_that_is_not_yaml_settings_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "c.yaml")


def test_yaml_cannot_make_python_objects(tmp_path):
    (tmp_path / "c.yaml").write_text("data: !!python/object/apply:os.system ['touch hacked']")
    with pytest.raises(ValueError, match="not a YAML file"):
        read_config(tmp_path / "c.yaml")
