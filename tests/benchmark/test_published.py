from torch_geometric_crystal.benchmark.published import leaderboard


def test_leaderboard_is_sorted_best_first():
    entries = leaderboard("matbench_phonons")
    assert (entries[0].algorithm, entries[0].mean) == ("MegNet (kgcnn v2.1.0)", 28.7606)
    assert entries[-1].algorithm == "Dummy"
    assert [e.mean for e in entries] == sorted(e.mean for e in entries)


def test_more_is_better_where_the_metric_says_so():
    assert leaderboard("matbench_mp_is_metal")[0].algorithm == "CGCNN v2019"


def test_a_task_that_is_not_listed_has_no_entries():
    assert leaderboard("matbench_steels") == leaderboard("flla_2015") == []
