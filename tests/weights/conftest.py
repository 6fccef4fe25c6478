"""One full-size network for the session, and each format's file of it."""

import pytest

from weights import formats


@pytest.fixture(scope="session")
def full():
    """VGG-19's convolutions in full size; conv1_1 has the numbers of the Oxford filters, for BGR."""
    return formats.planted("oxford", widths=formats.WIDTHS)
