import dataclasses
import subprocess
import sys

import pytest

from torch_geometric_crystal.benchmark.recipe import PRESETS, Recipe, default_recipe, describe_settings


def test_default_is_the_recipe_of_the_paper():
    recipe = Recipe()
    assert (recipe.optimizer, recipe.lr, recipe.betas, recipe.weight_decay) == ("adamw", 5e-4, (0.9, 0.98), 1e-5)
    assert (recipe.loss, recipe.clip_norm, recipe.epochs, recipe.batch_size) == ("l1", 1.0, 500, 128)
    assert recipe.averaging_epochs == 50
    assert default_recipe("crystalformer") == recipe


def test_cgcnn_preset_is_that_of_its_authors():
    recipe = default_recipe("cgcnn")
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.batch_size) == ("sgd", 0.01, 0.9, 256)
    assert recipe.loss == "mse"
    assert [recipe.lr_factor(0, epoch) for epoch in (0, 99, 100, 500)] == pytest.approx([1, 1, 0.1, 0.1])


def test_alignn_preset_is_that_of_its_authors():
    recipe = default_recipe("alignn")
    assert (recipe.epochs, recipe.batch_size, recipe.loss, recipe.standardize) == (300, 64, "mse", False)
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.decay_vectors) == ("adamw", 1e-3, 1e-5, False)
    assert (recipe.schedule, recipe.schedule_rise) == ("one-cycle", 0.3)
    assert (recipe.clip_norm, recipe.averaging_epochs, recipe.patience) == (0.0, 0, 0)


def test_a_model_without_a_preset_gets_the_common_recipe():
    assert default_recipe("unheard of") == Recipe.from_dict({"preset": "common"})


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (4000, 0.5**0.5), (12000, 0.5)])
def test_inverse_sqrt_schedule(step, factor):
    assert Recipe().lr_factor(step, epoch=0) == pytest.approx(factor)


@pytest.mark.parametrize(("epochs", "epoch_steps"), [(5, 7), (1, 4), (11, 1), (2, 1), (30, 10)])
@pytest.mark.parametrize("rise", [0.3, 0.05])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_cycle_schedule_is_that_of_torch(epochs, epoch_steps, rise, optimizer):
    import torch

    recipe = Recipe(
        epochs=epochs, optimizer=optimizer, schedule="one-cycle", schedule_rise=rise, lr=0.1, betas=(0.5, 0.999)
    )
    weight = [torch.zeros(1, requires_grad=True)]
    ours = torch.optim.AdamW(weight, betas=recipe.betas) if optimizer == "adamw" else torch.optim.SGD(weight)
    theirs = type(ours)(weight, **{"betas": recipe.betas} if optimizer == "adamw" else {"momentum": 0.9})
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        theirs, max_lr=0.1, epochs=epochs, steps_per_epoch=epoch_steps, pct_start=rise
    )
    names = ("lr", "betas") if optimizer == "adamw" else ("lr", "momentum")
    for step in range(epochs * epoch_steps):
        settings = recipe.optimizer_settings(step, step // epoch_steps, epoch_steps)
        assert settings.keys() == set(names)
        for name in names:
            assert settings[name] == pytest.approx(theirs.param_groups[0][name], rel=1e-12)
        theirs.step()
        if step + 1 < epochs * epoch_steps:
            scheduler.step()


def test_one_cycle_schedule_stays_at_its_end():
    """Where the number of batches varies from epoch to epoch, a run can have a few steps more than were expected."""
    recipe = Recipe(epochs=3, schedule="one-cycle")
    assert recipe.lr_factor(14, 2, 5) == pytest.approx(1 / 25e4)
    assert recipe.lr_factor(17, 2, 5) == recipe.lr_factor(14, 2, 5)


def test_other_schedules_leave_the_momentum_alone():
    for schedule in ("inverse-sqrt", "step", "constant"):
        assert Recipe(schedule=schedule, lr=0.2).optimizer_settings(0, 0, 5) == {"lr": 0.2}


def test_constant_schedule():
    assert Recipe(schedule="constant").lr_factor(10**6, 400) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer of at least 1, received 0"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"lr": -1.0}, "lr: expected a positive number"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"loss": "l3"}, "loss: expected one of 'l1', 'mse'"),
        ({"schedule": "cosine"}, "schedule"),
        ({"schedule_rise": 0.0}, "schedule_rise: expected a share between 0 and 1"),
        ({"schedule_rise": 1.0}, "schedule_rise"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
    ],
)
def test_value_out_of_range_names_the_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_dictionary_round_trip():
    recipe = Recipe(epochs=7, betas=(0.8, 0.9))
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_dictionary_changes_a_preset():
    recipe = Recipe.from_dict({"preset": "cgcnn", "epochs": 3})
    assert recipe == dataclasses.replace(default_recipe("cgcnn"), epochs=3)


@pytest.mark.parametrize(
    ("settings", "message"), [({"preset": "x"}, "recipe preset"), ({"epoch": 3}, "recipe setting")]
)
def test_unknown_names_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(settings)


def test_every_setting_is_documented():
    settings = describe_settings(Recipe)
    assert [setting.name for setting in settings] == [field.name for field in dataclasses.fields(Recipe)]
    assert all(len(setting.help) > 10 for setting in settings)


def test_every_preset_is_valid():
    assert all(isinstance(Recipe(**values), Recipe) for values in PRESETS.values())


def test_reading_the_recipes_does_not_load_torch():
    code = "import sys, torch_geometric_crystal.benchmark as b; b.PRESETS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
