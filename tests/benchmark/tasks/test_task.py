import numpy as np
import pytest

from torch_geometric_crystal.benchmark.tasks import inner_split, load_task


def test_inner_split_is_a_seeded_tenth():
    train, validation = inner_split(1012, seed=0)
    assert sorted(train + validation) == list(range(1012))
    assert len(validation) == 101
    assert validation == sorted(np.random.default_rng(0).permutation(1012)[:101].tolist())
    assert inner_split(1012, seed=1)[1] != validation
    assert [len(part) for part in inner_split(24, share=0.01)] == [23, 1]
    assert [len(part) for part in inner_split(24, share=0.0)] == [24, 0]


def test_validation_part_is_cut_from_the_training_part_alone(tiny_task):
    split = tiny_task.split(0)
    assert [len(part) for part in (split.train, split.val, split.test)] == [22, 2, 6]
    assert sorted((*split.train, *split.val)) == list(tiny_task.fold(0).train)
    assert sorted((*split.train, *split.val, *split.test)) == list(range(30))


def test_without_validation_all_of_the_training_part_is_trained_on(tiny_task):
    split = tiny_task.split(0, share=0.0)
    assert (split.train, split.val) == (tiny_task.fold(0).train, ())
    assert [len(part) for part in (tiny_task.split(0, share=0.25).train, tiny_task.split(0, share=0.25).val)] == [18, 6]


def test_fold_must_exist(tiny_task):
    with pytest.raises(ValueError, match="fold: expected 0 to 4, received 7"):
        tiny_task.split(7)


def test_an_unknown_name_lists_tasks_sets_and_what_a_store_needs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'gaps' is neither .*matbench_phonons.* nor .*flla_2015.*--data-dir"):
        load_task("gaps")
    with pytest.raises(FileNotFoundError, match=r"gaps.npz and matbench_gaps.npz are not in"):
        load_task("gaps", tmp_path)
