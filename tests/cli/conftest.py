"""A working folder for tests of commands."""

import numpy as np
import pytest
from PIL import Image

from cli.command import ROOT


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder but for two pictures; the command's own cache is the session's."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", "painting.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path
