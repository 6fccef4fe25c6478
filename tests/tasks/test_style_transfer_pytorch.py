"""The preset `style_transfer_pytorch` follows that project's pipeline; goldens and their script are in tests/data."""

import base64
import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags
from PIL import Image

from jnst import api, images, weights
from jnst.cli import flags
from jnst.config import StylizeConfig
from jnst.images import Picture
from jnst.tasks import stylize as task

DATA = Path(__file__).parents[1] / "data"
sys.path.insert(0, str(DATA))
import made_up  # noqa: E402

GOLDEN = json.loads((DATA / "style_transfer_pytorch.json").read_text())
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def preset(*more):
    values = absl_flags.FlagValues()
    flags.define(StylizeConfig, values)
    flags.parse(values, ["stylize", "--flagfile=style_transfer_pytorch", *more])
    return flags.to_config(StylizeConfig, values)


CONFIG = preset(
    "--precision=float64",
    "--size=64",
    "--min_size=32",
    "--first_steps=8",
    "--steps=5",
    "--print_every=1",
    "--style_mix=0.3,0.7",
    "--weights=random",
)


def eight_bits(seed, *shape):
    return np.floor(made_up.picture(seed, *shape) * 255).astype(np.uint8)


def exact(picture):
    """The same 8-bit numbers in float64: pictures are float32, whose rounding the losses would show."""
    return Picture(np.round(picture.rgb.astype(np.float64) * 255) / 255)


def inputs(config):
    """At the sizes that the command would give them, with the made-up network under the house's input rule."""
    params = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in made_up.layers().items()}
    first = params["conv1_1"]["kernel"]
    params["conv1_1"]["kernel"] = first * 60 / DEVIATION[:, None]
    found = api.read_inputs(
        config, content=eight_bits(1, 90, 120), styles=[eight_bits(2, 70, 60), eight_bits(3, 40, 60)]
    )
    backbone = weights.Backbone(
        name="made-up", sha256="", params={"mean": MEAN, **params}, padding=found.backbone.padding
    )

    def change(one):
        return dataclasses.replace(one, content=exact(one.content), styles=tuple(map(exact, one.styles)))

    return dataclasses.replace(change(found), backbone=backbone, smaller=tuple(map(change, found.smaller)))


@pytest.mark.slow
def test_losses_and_picture_are_the_project_s():
    config = CONFIG
    with api.computing(config):
        given = inputs(config)
        sizes = [list(one.content.size) for one in (*given.smaller, given)]
        result = task.run(api.prepare(given, config))
    assert sizes == GOLDEN["sizes"]
    rows = [[row for row in result.trace if row["size"] == max(size)] for size in sizes]
    for found, expected in zip(rows, GOLDEN["losses"], strict=True):
        # The last row is of a picture that no step starts from.
        np.testing.assert_allclose([row["total"] for row in found[:-1]], expected, rtol=1e-9)
    file = images.encode(Picture(result.image), "PNG", rounding=config.rounding)
    expected = np.frombuffer(base64.b64decode(GOLDEN["picture"]), np.uint8).reshape(GOLDEN["shape"])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), expected)


def test_the_preset_has_the_project_s_numbers():
    config = preset()
    layers = [float(part.split(":")[1]) for part in config.style_layers.split(",")]
    np.testing.assert_allclose(layers, np.array([256, 64, 16, 4, 1]) / 341, rtol=1e-13)
    assert (config.first_steps, config.steps, config.content_weight, config.tv_weight) == (1000, 500, 0.015, 2)
