"""What all tests share."""

import os

import pytest
from golden import GoldenCheck, add_golden_option, golden_check
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores out already. NumPy and torch read this when they are first imported, which is later.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

settings.register_profile(
    "gensynth",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gensynth")


def pytest_addoption(parser: pytest.Parser) -> None:
    add_golden_option(parser)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> GoldenCheck:
    """Compares a text with a golden file: `golden(path, text)`."""
    return golden_check(request.config)
