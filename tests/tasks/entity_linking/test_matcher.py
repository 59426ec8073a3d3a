"""The matcher against its formula, token by token, in float64."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.tasks.entity_linking.matcher import Matcher, Side, has_neighbour


def side(random_seed, lengths, width, size, mask_first):
    """Random states, few different tokens; special tokens at both ends; `mask_first` hides the
    second token."""
    generator = torch.Generator().manual_seed(random_seed)
    states = torch.randn(len(lengths), width, size, generator=generator, dtype=torch.float64)
    ids = torch.randint(1, 4, (len(lengths), width), generator=generator)
    place, length = torch.arange(width), torch.tensor(lengths)[:, None]
    hidden = (place == 1) & mask_first
    return Side(
        states, ids, (place < length) & ~hidden, (place > 0) & (place < length - 1) & ~hidden
    )


def by_hand(matcher, text, description, mention, prior):
    """The fit of one pair."""

    def shared(own, other, t):
        equal = [
            s
            for s in range(len(other[1]))
            if own[3][t] and other[3][s] and own[1][t] == other[1][s]
        ]
        beside = [
            s
            for s in equal
            for d in (-1, 1)
            if 0 <= t + d < len(own[1]) and 0 <= s + d < len(other[1])
            if own[3][t + d] and other[3][s + d] and own[1][t + d] == other[1][s + d]
        ]
        return equal, torch.tensor([float(bool(equal)), float(bool(beside))], dtype=torch.float64)

    def pooled(layer, own, other):
        rows = []
        for t in (t for t in range(len(own[1])) if own[2][t]):
            equal, flags = shared(own, other, t)
            places = [s for s in range(len(other[1])) if other[2][s]]
            scores = [
                own[0][t] @ other[0][s] / matcher.size**0.5 + matcher.same * (s in equal)
                for s in places
            ]
            weights = torch.stack(scores).softmax(0)
            seen = sum(w * other[0][s] for w, s in zip(weights, places, strict=True))
            rows.append(layer(torch.cat([own[0][t], seen, own[0][t] * seen, flags])).relu())
        return torch.stack(rows).amax(0)

    parts = pooled(matcher.text, text, description), pooled(matcher.description, description, text)
    return matcher.fit(torch.cat([*parts, matcher.mention(mention), prior]))


@given(st.integers(0, 1000), st.lists(st.integers(2, 7), min_size=1, max_size=3), st.booleans())
def test_the_fit_is_that_of_the_formula(seed, lengths, masked):
    torch.manual_seed(seed)
    matcher = Matcher(6, 4, 2).double()
    text, description = (
        side(seed, lengths, 8, 4, masked),
        side(seed + 1, lengths[::-1], 9, 4, False),
    )
    mention, prior = (torch.randn(len(lengths), size, dtype=torch.float64) for size in (6, 2))
    fits = matcher(text, description, mention, prior)
    for row in range(len(lengths)):
        one, other = ([part[row] for part in vars(s).values()] for s in (text, description))
        torch.testing.assert_close(
            fits[row : row + 1], by_hand(matcher, one, other, mention[row], prior[row])
        )


@given(st.integers(0, 1000))
def test_neighbours_lie_on_the_same_diagonal(seed):
    same = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(seed)) < 0.4
    found = has_neighbour(same)[0]
    for t in range(4):
        for s in range(5):
            around = [(t + d, s + d) for d in (-1, 1) if 0 <= t + d < 4 and 0 <= s + d < 5]
            assert (found[t, s] and same[0, t, s]) == (
                same[0, t, s] and any(same[0, i, j] for i, j in around)
            )
