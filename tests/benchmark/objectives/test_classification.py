"""The loss, the metrics and the table of a classification, against their definitions."""

import math

import pytest
import torch
from sklearn import metrics as sklearn_metrics

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.metrics import classification_metrics
from torch_geometric_crystal.benchmark.objectives import Classification, make_objective
from torch_geometric_crystal.nn.readout import TargetNormalization

NAN = math.nan
STD = torch.ones(1)


def make_card(*classes, **settings):
    given = {"model": "cgcnn", "model_options": {}, "target_names": ["phase"], "units": [""], "task": "classification"}
    return ModelCard(**given | {"classes": classes} | settings)


@pytest.fixture
def objective():
    return make_objective(make_card("a", "b", "c"))


@pytest.fixture
def drawn():
    """Logits of 40 rows, and their classes, of which every fifth is unknown."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (40, 1), generator=generator).float()
    target[::5] = NAN
    return torch.randn(40, 3, generator=generator, dtype=torch.float64), target


def test_loss_is_the_cross_entropy_of_known_rows_and_others_have_no_gradient(objective, drawn):
    logits, target = drawn
    logits.requires_grad_()
    loss = objective.total_loss(logits, target, STD, "l1")
    known = ~target[:, 0].isnan()
    expected = -sum(row.log_softmax(0)[int(y)] for row, y in zip(logits[known], target[known, 0], strict=True))
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert logits.grad[~known].eq(0).all()
    assert logits.grad[known].ne(0).all()
    assert objective.total_loss(logits[~known], target[~known], STD, "l1").item() == 0


@pytest.mark.parametrize("number", [2, 3])
def test_metrics_are_those_of_scikit_learn(number, drawn):
    logits, target = drawn
    logits, target = logits[:, :number], target.clamp(max=number - 1)
    probabilities = logits.softmax(1)
    known = ~target[:, 0].isnan()
    y, scores = target[known, 0].long().numpy(), probabilities[known].numpy()
    chosen = scores.argmax(1)
    binary = number == 2
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(y, chosen),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(y, chosen),
        "f1": sklearn_metrics.f1_score(y, chosen, average="binary" if binary else "macro"),
        "rocauc": sklearn_metrics.roc_auc_score(y, scores[:, 1] if binary else scores, multi_class="ovr"),
        "cross_entropy": sklearn_metrics.log_loss(y, scores),
    }
    found = classification_metrics(probabilities, target)
    assert found.pop("count") == 32
    assert found == pytest.approx(expected, abs=1e-6)


def test_class_that_does_not_occur_is_left_out_of_the_means():
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    found = classification_metrics(probabilities, torch.tensor([[0.0], [1.0], [1.0]]))
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["rocauc"] == pytest.approx(1.0)
    alone = classification_metrics(probabilities, torch.zeros(3, 1))
    assert math.isnan(alone["rocauc"])
    assert alone["accuracy"] == pytest.approx(2 / 3)


def test_without_known_rows_there_are_no_metrics():
    found = classification_metrics(torch.ones(2, 3) / 3, torch.full((2, 1), NAN))
    assert found.pop("count") == 0
    assert all(math.isnan(value) for value in found.values())


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"prediction, target: expected \(n, K\), \(n, 1\)"):
        classification_metrics(torch.ones(2, 3), torch.ones(2, 2))


def test_validation_compares_epochs_by_cross_entropy(objective, drawn):
    logits, target = drawn
    columns, error = objective.validate(logits, target, STD)
    found = classification_metrics(objective.predict(logits), target)
    assert columns == pytest.approx(
        {"val_cross_entropy_phase": found["cross_entropy"], "val_accuracy_phase": found["accuracy"]}
    )
    assert error == columns["val_cross_entropy_phase"]
    assert math.isnan(objective.validate(logits, target * NAN, STD)[1])


def test_logits_are_not_scaled(objective):
    normalization = TargetNormalization(3)
    objective.fit_normalization(normalization, torch.tensor([[0.0], [2.0], [NAN]]), standardize=True)
    assert (normalization.mean.tolist(), normalization.std.tolist()) == ([0.0] * 3, [1.0] * 3)
    with pytest.raises(ValueError, match="at least one known class"):
        objective.fit_normalization(normalization, torch.tensor([[NAN]]), standardize=True)


def test_baseline_predicts_the_shares_of_the_training_part(objective):
    train = torch.tensor([[0.0], [0.0], [1.0], [2.0], [NAN]])
    found = objective.baseline(train, torch.tensor([[0.0], [1.0]]))["phase"]
    assert found["cross_entropy"] == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2)
    assert found["accuracy"] == 0.5


def test_cells_name_classes_and_leave_unknown_ones_empty(objective):
    assert objective.target_cells([1.0]) == {"target": "b"}
    assert objective.target_cells([NAN]) == {"target": None}
    cells = objective.prediction_cells([0.1, 0.2, 0.7])
    assert cells == {"prediction": "c", "probability_a": 0.1, "probability_b": 0.2, "probability_c": 0.7}
    assert set(objective.prediction_cells(()).values()) == {None}


def test_pictures_are_drawn_even_without_a_known_class(objective, drawn, tmp_path):
    logits, target = drawn
    objective.draw(objective.predict(logits), target, tmp_path, "title")
    assert {path.name for path in tmp_path.iterdir()} == set(objective.pictures)
    objective.draw(objective.predict(logits), target * NAN, tmp_path, "title")


def test_card_must_name_one_target_and_two_classes():
    with pytest.raises(ValueError, match="targets: expected one column of classes"):
        Classification(make_card("a", "b", target_names=["x", "y"], units=["", ""]))
    with pytest.raises(ValueError, match="classes: expected names of two classes at least"):
        Classification(make_card("a"))
