"""How long the campaigns go on: `python -m pytest tests/campaigns -m slow --kills 1000`.

Each is seeded, and takes under a minute by default.
"""

import pytest

COUNTS = {"kills": (8, "of training commands, at random moments")}
"""Campaign -> (how many by default, of what); each is an option `--NAME N`, and a fixture."""


def pytest_addoption(parser):
    group = parser.getgroup("campaigns")
    for name, (default, what) in COUNTS.items():
        group.addoption(f"--{name}", type=int, default=default, help=what)
    group.addoption("--campaign-seed", type=int, default=1, help="of all that is random in them")


def count_of(request, name):
    """How many a campaign tries; the options are known where pytest was given its folder."""
    return request.config.getoption(f"--{name}", COUNTS[name][0])


@pytest.fixture
def kills(request):
    return count_of(request, "kills")


@pytest.fixture
def campaign_seed(request):
    return request.config.getoption("--campaign-seed", 1)
