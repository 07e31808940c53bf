import pytest

from torch_geometric_crystal.benchmark.plots import new_figure
from torch_geometric_crystal.benchmark.tasks.pictures import _legend, _set_error_axis
from torch_geometric_crystal.benchmark.tasks.summary import ModelScore, TaskSummary


@pytest.mark.parametrize(("means", "scale"), [([28.0, 324.0], "log"), ([28.0, 60.0], "linear"), ([0.0, 9.0], "linear")])
def test_errors_that_span_much_are_on_a_logarithmic_axis(means, scale):
    axes = new_figure(3.0, 2.0).subplots()
    _set_error_axis(axes, means)
    assert axes.get_xscale() == scale


def test_a_picture_without_published_entries_says_which_data_it_is_of():
    score = ModelScore("cgcnn", {0: 1.0}, 5, 3.0, 2.0)
    summary = TaskSummary("flla_2015:e", "not a Matbench task", "mae", "e", "eV", [score], [])
    assert _legend(summary) == "orange: here (cgcnn: fold 0 of 5, 3 epochs, 2.0 min)\nnot a Matbench task"
