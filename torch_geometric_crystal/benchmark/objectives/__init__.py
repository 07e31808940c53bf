"""What is asked of a model: a regression or a classification, and all that differs between them."""

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.objectives.base import Objective
from torch_geometric_crystal.benchmark.objectives.classification import Classification
from torch_geometric_crystal.benchmark.objectives.regression import Regression

OBJECTIVES: dict[str, type[Objective]] = {"regression": Regression, "classification": Classification}
"""Objectives by the name in ``RunConfig.task``."""


def make_objective(card: ModelCard) -> Objective:
    """The objective of the model that a card describes."""
    return OBJECTIVES[card.task](card)


__all__ = ["OBJECTIVES", "Classification", "Objective", "Regression", "make_objective"]
