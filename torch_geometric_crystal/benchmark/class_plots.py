"""Pictures of a classification: the confusion matrix and the ROC curves."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from torch_geometric_crystal.benchmark.plots import GREY, new_figure, save_figure, tidy

MOST_NAMED = 20
"""Classes up to which the matrix has numbers and the curves a legend."""


def plot_confusion(
    probabilities: Tensor, classes: Tensor, path: str | Path, names: Sequence[str], title: str = ""
) -> None:
    """Draw how many of each true class were taken for each class, coloured by the share of the row, as a PNG.

    Args:
        probabilities: of the classes; the most probable one counts.
        classes: numbers of the true classes.
        path: the picture.
        names: the classes' names, K.
        title: heading.

    Shapes:
        - probabilities: (n, K), classes: (n,).
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    number = len(names)
    counts = torch.zeros(number, number, dtype=torch.long)
    if len(classes):
        counts = multiclass_confusion_matrix(probabilities.argmax(dim=1), classes, num_classes=number)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = max(3.6, min(0.55 * number + 2.2, 12.0))
    figure = new_figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    if number <= MOST_NAMED:
        for row in range(number):
            for column in range(number):
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=shade)
        axes.set_xticks(range(number), names, rotation=45 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(number), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def plot_roc(probabilities: Tensor, classes: Tensor, path: str | Path, names: Sequence[str], title: str = "") -> None:
    """Draw the rate of true positives against that of false ones, as a PNG: a curve for each class against the others.

    Of two classes the second one's alone is drawn, the other being its mirror image. A class without a positive or
    without a negative has no curve.

    Args:
        probabilities: of the classes.
        classes: numbers of the true classes.
        path: the picture.
        names: the classes' names, K.
        title: heading.

    Shapes:
        - probabilities: (n, K), classes: (n,).
    """
    from torchmetrics.functional.classification import binary_auroc, binary_roc

    figure = new_figure(4.4, 4.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    drawn = False
    for number in range(1 if len(names) == 2 else 0, len(names)):
        positive = (classes == number).long()
        if 0 < int(positive.sum()) < len(positive):
            score = probabilities[:, number].double()
            false_rate, true_rate, _ = binary_roc(score, positive)
            area = float(binary_auroc(score, positive))
            axes.plot(false_rate, true_rate, linewidth=1.5, label=f"{names[number]}: area {area:.3f}")
            drawn = True
    if drawn and len(names) <= MOST_NAMED:
        axes.legend(frameon=False, loc="lower right", fontsize=8)
    axes.set(xlabel="share of the others taken for it", ylabel="share of the class found", aspect="equal")
    tidy(axes)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)
