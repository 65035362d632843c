"""What all tests share."""

import pytest
from golden import GoldenCheck, add_golden_option, golden_check


def pytest_addoption(parser: pytest.Parser) -> None:
    add_golden_option(parser)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> GoldenCheck:
    """Compares a text with a golden file: `golden(path, text)`."""
    return golden_check(request.config)
