"""What is said in words, from tables made for the purpose."""

import statistics

import numpy as np
import pytest

from scautoimpute.evaluation.claims import claims_of
from scautoimpute.evaluation.recommendation import _error_over_cells, recommendation_of
from scautoimpute.evaluation.scores import best_within_noise, columns, difference


def cells(experiment, measure, setting, values, *, dataset="a", noise=0.01):
    """One cell per method and seed; all methods share the noise of a seed, and each has half as much of its own."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, noise, 3)
    return [
        {
            "experiment": experiment,
            "dataset": dataset,
            "method": method,
            "seed": seed,
            "asked": {},
            "status": "done",
            "note": "",
            "scores": [
                {"setting": setting, "measure": measure, "value": value + shared[seed] + rng.normal(0, noise / 2)}
            ],
        }
        for method, value in values.items()
        for seed in range(3)
    ]


def claim(found, words):
    (one,) = [c for c in claims_of({"cells": found}) if words in c["paper"]]
    return one


def test_what_was_not_run_is_not_tested():
    assert {c["verdict"] for c in claims_of({"cells": []})} == {"not tested"}


@pytest.mark.parametrize(("ours", "reproduced"), [(1.0, True), (3.0, False)])
def test_the_lowest_error(ours, reproduced):
    found = cells("recovery", "rmse", "10%", {"autoimpute": ours, "als": 2.0, "autoimpute-paper": 0.5})
    one = claim(found, "RMSE")
    assert one["reproduced"] is reproduced
    assert ("lower than it: a 10% (als)" in one["ours"]) is not reproduced
    assert "autoimpute-paper" not in one["ours"]
    assert one["ours"].startswith(f"this package's masked objective is lowest in {int(reproduced)} and tied in 0 of 1 ")
    assert one["ours"].endswith("; the published training is lowest in 1 of its 1.")


def test_the_published_training_is_counted_where_it_was_run_and_against_rivals_alone():
    best = {"autoimpute": 1.0, "als": 2.0}
    found = cells("recovery", "mae", "10%", best | {"autoimpute-paper": 9.0, "autoimpute-counts": 0.1}, dataset="a")
    found += cells("recovery", "mae", "10%", best | {"autoimpute-paper": 1.5}, dataset="b")
    found += cells("recovery", "mae", "20%", best, dataset="b")
    found += cells("recovery", "rmse", "10%", best, dataset="b")
    ours, published = claim(found, "MAE")["ours"].split("; ")
    assert ours.endswith("lowest in 3 and tied in 0 of 3 (data set × share) on 2 data sets")
    assert published == "the published training is lowest in 1 of its 2."
    assert "published" not in claim(found, "RMSE")["ours"]


def test_clusters_best_or_tied_on_five_of_eight():
    sets = {f"set{i}": 0.9 if i < 5 else 0.1 for i in range(8)}
    found = [c for name, ari in sets.items() for c in aris(name, ari)]
    assert claim(found, "five of eight")["reproduced"] is True
    assert "best on 5 and tied-best on 0 of 8" in claim(found, "five of eight")["ours"]
    fewer = [c for name, ari in sets.items() for c in aris(name, ari if name != "set0" else 0.1)]
    assert claim(fewer, "five of eight")["reproduced"] is False
    worse = claim(fewer, "at least as well")
    assert worse["reproduced"] is False
    assert "set0 (-0." in worse["ours"]


def aris(dataset, ari):
    return cells("structure", "ari", "all types", {"autoimpute": ari, "none": 0.5, "magic": 0.6}, dataset=dataset)


def test_what_is_within_noise_is_tied():
    found = cells("recovery", "rmse", "10%", {"autoimpute": 1.0, "als": 1.0001, "knn": 2.0}, noise=0.05)
    (column,) = columns(found, experiment="recovery", measure="rmse").values()
    best, tied = best_within_noise(column, lower=True)
    assert tied == {"autoimpute", "als"}
    assert best in tied
    gap, error = difference(column, of="knn", to="als")
    by_hand = [column["knn"][seed] - column["als"][seed] for seed in range(3)]
    assert gap == pytest.approx(statistics.fmean(by_hand))
    assert error == pytest.approx(np.std(by_hand, ddof=1) / np.sqrt(3))


def sizes(status, **rivals):
    return [
        {"experiment": "scale", "dataset": f"a@{n}", "method": method, "seed": 0, "asked": {"n_cells": n}}
        | {"status": ended, "note": "", "scores": []}
        for n in (1000, 68_000)
        for method, ended in (("autoimpute", "done" if n == 1000 else status), *rivals.items())
    ]


def test_scale_is_reproduced_by_the_largest_size_and_where_others_run_out_of_memory():
    found = claim(sizes("done", als="out of memory", gene_mean="done", scvi="not run"), "68,000")
    assert found["reproduced"] is True
    assert "of the others gene_mean done; als out of memory." in found["ours"]
    assert claim(sizes("out of memory", als="out of memory"), "68,000")["reproduced"] is False


@pytest.mark.parametrize(
    ("rivals", "said"),
    [
        ({"als": "timed out"}, "als timed out"),
        ({"als": "done"}, "none that was tried did not end"),
        ({"scvi": "not run"}, "none that was tried did not end"),  # not installed, which says nothing of it
    ],
)
def test_that_others_run_out_of_memory_is_part_of_the_claim(rivals, said):
    found = claim(sizes("done", **rivals), "68,000")
    assert found["reproduced"] is False
    assert said in found["ours"]


def test_scale_is_not_reproduced_where_a_rival_gets_as_far():
    """However many run out of memory; what is no more than a floor runs on any number of cells."""
    found = claim(sizes("done", none="done", gene_cell_bias="done", als="out of memory", knn="done"), "68,000")
    assert found["verdict"] == "not reproduced"
    assert "of the others none, gene_cell_bias, knn done; als out of memory." in found["ours"]


def test_a_median_difference_has_its_sign():
    found = cells("structure", "silhouette", "all types", {"autoimpute": 0.9, "none": 0.8}, dataset="a")
    for name in "bc":
        found += cells("structure", "silhouette", "all types", {"autoimpute": 0.4, "none": 0.8}, dataset=name)
    assert "is higher on 1 of 3 data sets; the median difference is -0.40." in claim(found, "separated")["ours"]


def test_the_mean_of_an_easy_seed_is_not_held_against_the_mean_of_all():
    column = {"a": {0: 1.0, 1: 9.0}, "b": {0: 2.0}, "c": {1: 8.0}, "d": {5: 0.0}}
    assert best_within_noise({name: column[name] for name in "abd"}, lower=True) == ("a", {"a"})
    assert best_within_noise({name: column[name] for name in "ac"}, lower=True) == ("c", {"c"})


# ------------------------------------------------------------------------------------------------ advice


def advice(**values):
    recovery = {"gene_cell_bias": 2.0} | values
    return recommendation_of({"cells": cells("recovery", "rmse", "10%", recovery)}).split("\n\n")


def test_what_helps_is_recommended():
    first, reason, *_ = advice(autoimpute=1.5, als=1.7)
    assert first.startswith("Use autoimpute for recovering hidden entries")
    assert "autoimpute has 1.5" in reason
    assert "helps" in reason


@pytest.mark.parametrize("best", [2.5, 2.0, 1.995])  # worse, alike, better by less than is worth it
def test_where_nothing_helps_the_advice_is_not_to_impute(best):
    first, reason, *_ = advice(autoimpute=best, als=2.6)
    assert first.startswith("Do not impute these data")
    assert "does not help" in reason


@pytest.mark.parametrize(
    ("knn", "starts"), [(0.5, "Do not impute"), (0.3, "Use knn for predicting held-out molecules")]
)
def test_of_molecules_more_has_to_be_known_than_the_mean_of_each_gene(knn, starts):
    found = cells("molecules", "held_out_deviance", "10%", {"none": 2.0, "gene_mean": 0.4, "knn": knn}, noise=1e-3)
    assert recommendation_of({"cells": found}).startswith(starts)


def test_one_seed_is_no_evidence():
    found = [c for c in cells("recovery", "rmse", "10%", {"gene_cell_bias": 2.0, "als": 1.0}) if c["seed"] == 0]
    text = recommendation_of({"cells": found})
    assert text.startswith("Do not impute")
    assert "one seed, so noise is not known" in text


def test_too_few_methods_give_no_advice():
    assert recommendation_of({"cells": []}).startswith("No recommendation")


def test_with_types_both_answers_are_given():
    found = cells("recovery", "rmse", "10%", {"gene_cell_bias": 2.0, "als": 1.0})
    found += cells("structure", "ari", "all types", {"none": 0.8, "als": 0.6})
    first = recommendation_of({"cells": found}).split("\n\n")[0]
    assert "Use als for recovering hidden entries" in first
    assert "Nothing helps with clusters that agree with the given types" in first


def clustered(knn, *, over_cells):
    """Scores that every seed agrees on, and halves of the cells over which the difference spreads by so much."""
    found = cells("structure", "ari", "all types", {"none": 0.6, "knn": knn}, noise=1e-4)
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        halves = cells("structure", "ari_of_half", f"half {number}", {"none": 0.6, "knn": knn})
        for half in halves:
            half["scores"][0]["value"] += rng.normal(0, over_cells / np.sqrt(2))
        found += halves
    return recommendation_of({"cells": found}).split("\n\n")


@pytest.mark.parametrize(("over_cells", "starts"), [(0.1, "Do not impute these data"), (0.01, "Use knn for clusters")])
def test_clusters_have_to_be_better_than_other_cells_would_make_them(over_cells, starts):
    first, reason, *_ = clustered(0.68, over_cells=over_cells)
    assert first.startswith(starts)
    assert "over cells, 3 seeds" in reason


def test_clusters_of_cells_too_few_to_be_halved_are_no_evidence():
    found = cells("structure", "ari", "all types", {"none": 0.6, "knn": 0.9}, noise=1e-4)
    first, reason, *_ = recommendation_of({"cells": found}).split("\n\n")
    assert first.startswith("Do not impute")
    assert "too few cells to be halved" in reason


def test_the_spread_over_halves_is_the_standard_error_of_a_mean():
    """The delete-half jackknife, of a difference of means whose standard error is known."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400))
    halves = [rng.permutation(400)[:200] for _ in range(500)]
    scores = [{"a": {0: float(a[half].mean())}, "b": {0: float(b[half].mean())}} for half in halves]
    expected = (a - b).std(ddof=1) / np.sqrt(400)
    assert _error_over_cells(scores, of="a", to="b") == pytest.approx(expected, rel=0.1)
