"""The pictures in examples/ are what their scripts draw, and the README's picture is what the quickstart makes."""

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def _draw(script):
    spec = importlib.util.spec_from_file_location(script, ROOT / "examples" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.draw()


@pytest.mark.slow
@pytest.mark.parametrize(("script", "picture"), [("draw_content", "harbor.jpg"), ("draw_style", "strokes.jpg")])
def test_a_picture_is_what_its_script_draws(script, picture):
    with Image.open(ROOT / "examples" / picture) as image:
        stored = np.asarray(image, np.float32)
    buffer = io.BytesIO()
    Image.fromarray(_draw(script)).save(buffer, "JPEG", quality=92)
    with Image.open(buffer) as image:
        drawn = np.asarray(image, np.float32)
    assert drawn.shape == stored.shape
    assert np.abs(drawn - stored).mean() < 1  # of 255: encoders differ by a little, other drawings by tens


def test_the_street_and_its_half_of_the_readmes_picture_are_what_the_script_draws():
    drawn = _draw("draw_street")
    with Image.open(ROOT / "examples" / "street.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), drawn)
    with Image.open(ROOT / "docs" / "facades.jpg") as image:
        above = np.asarray(image, np.float32)[: len(drawn)]
    assert np.abs(above - drawn).mean() < 10  # of 255: a JPEG of saturated edges


def test_the_picture_of_the_readme_is_the_quickstarts():
    from absl import flags as absl_flags

    from jnst.cli import flags
    from jnst.config import StylizeConfig

    values = absl_flags.FlagValues()
    flags.define(StylizeConfig, values)
    flags.parse(values, ["stylize", "--flagfile=quickstart"])
    wanted = flags.resolved(flags.to_config(StylizeConfig, values))
    with Image.open(ROOT / "docs" / "quickstart.png") as image:
        made_with = json.loads(image.text["jnst"])["flags"]
    assert made_with == {name: wanted[name] for name in made_with}
