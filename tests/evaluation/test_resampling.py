"""Intervals and p-values against cases with a known answer."""

import itertools
import math
import time

import numpy as np
import pytest

from nlpkit.evaluation.resampling import (
    Counts,
    bootstrap,
    bootstrap_p,
    fraction,
    holm,
    interval,
    randomisation_p,
)


def counts(*seeds):
    """Counts of (above, below) lines, one list for each seed."""
    table = np.array(seeds, dtype=float)
    return Counts(table[:, :, 0], table[:, :, 1])


def accuracy(*seeds):
    return counts(*([(value, 1) for value in values] for values in seeds))


def draw_lines(random, lines, rights, kept=0.5):
    """Made-up lines of extraction: 2 correct and predicted + gold of systems that find a gold fact
    with the given chances; `kept` is the share of the luck that the systems have in common."""
    gold_N = random.integers(0, 5, lines)
    common_N = random.random((lines, 5))
    own = random.random((len(rights), lines, 5))
    shared = random.random((lines, 5)) < kept
    exists = np.arange(5) < gold_N[:, None]
    systems = []
    for right, luck in zip(rights, own, strict=True):
        correct_N = ((np.where(shared, common_N, luck) < right) & exists).sum(1)
        predicted_N = correct_N + random.integers(0, 2, lines)
        systems.append((2 * correct_N, predicted_N + gold_N))
    return systems


def true_f1(right):
    """Of `draw_lines`, from the expectations: gold 2, predicted 2 right + 0.5."""
    return 2 * 2 * right / (2 * right + 0.5 + 2)


def test_a_fraction_of_nothing_is_0():
    assert fraction(np.array([1.0, 0.0]), np.array([4.0, 0.0])).tolist() == [0.25, 0.0]


def test_metric_mean_and_deviation_of_seeds():
    both = counts([(2, 2), (0, 2)], [(2, 2), (2, 2)])
    assert both.of_seeds.tolist() == [0.5, 1.0]
    assert both.value == 0.75
    assert both.deviation == pytest.approx(math.sqrt(0.125))


def test_randomisation_finds_the_share_of_all_swaps():
    """Eight lines, all on the side of the second but one: 2 * (1 + 8) of 256 sets of swaps give a
    difference of 6 lines or more."""
    first, second = accuracy([1] + [0] * 7 + [1] * 4), accuracy([0] + [1] * 7 + [1] * 4)
    signs = itertools.product((-1, 1), repeat=8)
    exact = sum(abs(sum(s)) >= 6 for s in signs) / 256
    assert exact == 18 / 256
    assert randomisation_p(first, second, 20_000, 1) == pytest.approx(exact, abs=0.005)


def test_randomisation_of_f1_counts_every_swap():
    """F1 is no mean of lines: the exact share comes from all sets of swaps."""
    a = [(2, 4), (0, 3), (4, 4), (2, 2), (0, 0), (2, 6)]
    b = [(4, 4), (2, 3), (4, 6), (2, 2), (0, 1), (4, 5)]
    found = abs(np.divide(*np.sum(b, 0)) - np.divide(*np.sum(a, 0)))
    larger = 0
    for swaps in itertools.product((False, True), repeat=6):
        one = np.sum([y if swap else x for x, y, swap in zip(a, b, swaps, strict=True)], 0)
        other = np.sum([x if swap else y for x, y, swap in zip(a, b, swaps, strict=True)], 0)
        larger += abs(np.divide(*other) - np.divide(*one)) >= found - 1e-12
    assert randomisation_p(counts(a), counts(b), 20_000, 1) == pytest.approx(larger / 64, abs=0.012)


def test_a_system_against_itself():
    one = accuracy([1, 0, 1, 1, 0])
    drawn = bootstrap([one, one], 500, 1)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert bootstrap_p(drawn[:, 1] - drawn[:, 0], 0.0) == 1.0
    assert randomisation_p(one, one, 500, 1) == 1.0


def test_no_p_value_is_0():
    first, second = accuracy([0] * 200), accuracy([1] * 200)
    assert randomisation_p(first, second, 999, 1) == 1 / 1000
    drawn = bootstrap([first, second], 999, 1)
    assert bootstrap_p(drawn[:, 1] - drawn[:, 0], 1.0) == 1 / 1000
    assert interval(drawn[:, 1] - drawn[:, 0], 0.05) == (1.0, 1.0)


def test_bootstrap_has_the_spread_of_a_mean():
    """The standard deviation of a mean of 400 values of variance 1/4 is 0.025."""
    drawn = bootstrap([accuracy([0, 1] * 200)], 4000, 1)[:, 0]
    assert drawn.mean() == pytest.approx(0.5, abs=0.002)
    assert drawn.std() == pytest.approx(0.025, rel=0.05)
    low, high = interval(drawn, 0.05)
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.004)


def test_both_p_values_agree_with_the_normal_one():
    random = np.random.default_rng(5)
    first, second = (
        counts(list(zip(*system, strict=True))) for system in draw_lines(random, 600, (0.7, 0.74))
    )
    drawn = bootstrap([first, second], 4000, 1)
    difference = second.value - first.value
    spread = (drawn[:, 1] - drawn[:, 0]).std()
    normal = math.erfc(difference / spread / math.sqrt(2))
    assert 0.0005 < normal < 0.5
    assert bootstrap_p(drawn[:, 1] - drawn[:, 0], difference) == pytest.approx(normal, abs=0.02)
    assert randomisation_p(first, second, 4000, 1) == pytest.approx(normal, abs=0.03)


def test_the_same_seed_gives_the_same_figures():
    first, second = accuracy([1, 0, 1, 0, 0, 1]), accuracy([0, 1, 1, 1, 0, 1])
    assert (bootstrap([first, second], 50, 3) == bootstrap([first, second], 50, 3)).all()
    assert (bootstrap([first, second], 50, 3) != bootstrap([first, second], 50, 4)).any()


def test_seeds_that_differ_widen_the_interval():
    same = accuracy([1, 0] * 50, [1, 0] * 50, [1, 0] * 50)
    different = accuracy([1, 0] * 50, [1, 1] * 50, [0, 0] * 50)
    narrow = interval(bootstrap([same], 2000, 1)[:, 0], 0.05)
    wide = interval(bootstrap([different], 2000, 1)[:, 0], 0.05)
    assert narrow[1] - narrow[0] < 0.25
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_ten_thousand_lines_take_seconds():
    random = np.random.default_rng(1)
    first, second = (
        counts(list(zip(*system, strict=True)))
        for system in draw_lines(random, 10_000, (0.7, 0.71))
    )
    start = time.process_time()
    bootstrap([first, second], 10_000, 1)
    randomisation_p(first, second, 10_000, 1)
    assert time.process_time() - start < 4


def test_lines_that_are_all_different_are_drawn_as_well():
    random = np.random.default_rng(2)
    values = random.random(300)
    drawn = bootstrap([accuracy(values)], 3000, 1)[:, 0]
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.003)
    assert drawn.std() == pytest.approx(values.std() / math.sqrt(300), rel=0.06)


@pytest.mark.slow
def test_the_interval_of_the_difference_covers_the_truth():
    """95 of 100 intervals hold the true difference; of lines without one, 5 p-values of 100 lie
    below 0.05."""
    random = np.random.default_rng(7)
    truth = true_f1(0.73) - true_f1(0.7)
    covered = bootstrap_false = randomisation_false = 0
    for trial in range(1000):
        systems = [
            counts(list(zip(*system, strict=True)))
            for system in draw_lines(random, 300, (0.7, 0.73, 0.7))
        ]
        drawn = bootstrap(systems, 500, trial)
        low, high = interval(drawn[:, 1] - drawn[:, 0], 0.05)
        covered += low <= truth <= high
        difference = systems[2].value - systems[0].value
        bootstrap_false += bootstrap_p(drawn[:, 2] - drawn[:, 0], difference) <= 0.05
        randomisation_false += randomisation_p(systems[0], systems[2], 500, trial) <= 0.05
    assert 930 <= covered <= 970
    assert 30 <= bootstrap_false <= 70
    assert 30 <= randomisation_false <= 70


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_with_seeds_the_interval_covers_too(seeds):
    """The chance of a fact to be found differs from seed to seed, by 0.02; never too narrow."""
    random = np.random.default_rng(11)
    truth = true_f1(0.73) - true_f1(0.7)
    covered = 0
    for trial in range(1000):
        rights = np.concatenate([random.normal(mean, 0.02, seeds) for mean in (0.7, 0.73)])
        systems = draw_lines(random, 300, rights)
        first, second = systems[:seeds], systems[seeds:]
        pair = [
            Counts(np.array([s[0] for s in half], float), np.array([s[1] for s in half], float))
            for half in (first, second)
        ]
        drawn = bootstrap(pair, 500, trial)
        low, high = interval(drawn[:, 1] - drawn[:, 0], 0.05)
        covered += low <= truth <= high
    assert covered >= 930


def test_holm_by_hand():
    """Of m = 4: 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.9 x 1, none below one before it."""
    assert holm([0.9, 0.01, 0.03, 0.02]) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_find():
    """Of 5 comparisons without a difference some p <= 0.05 is found in 5 % of the trials, and in 23 %
    of them without the correction."""
    random = np.random.default_rng(1)
    drawn = random.random((4000, 5))
    found = np.mean([min(holm(row.tolist())) <= 0.05 for row in drawn])
    assert found == pytest.approx(0.05, abs=0.01)
    assert np.mean(drawn.min(1) <= 0.05) == pytest.approx(1 - 0.95**5, abs=0.02)
