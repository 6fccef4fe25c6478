"""The preset `neural_style` follows neural-style's PyTorch port; goldens and their script are in tests/data."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags as absl_flags

from jnst.cli import flags
from jnst.config import StylizeConfig
from jnst.tasks import stylize as task

DATA = Path(__file__).parents[1] / "data"
sys.path.insert(0, str(DATA))
import made_up  # noqa: E402

GOLDENS = json.loads((DATA / "neural_style.json").read_text())["losses"]


def preset(*more):
    values = absl_flags.FlagValues()
    flags.define(StylizeConfig, values)
    flags.parse(values, ["stylize", "--flagfile=neural_style", *more])
    return flags.to_config(StylizeConfig, values)


def params():
    """The made-up network under the house's input rule."""
    found = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in made_up.layers().items()}
    found["conv1_1"]["kernel"] = found["conv1_1"]["kernel"][:, :, ::-1] * 255
    return {"mean": np.array([123.68, 116.779, 103.939]) / 255, **found}


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDENS)
def test_losses_follow_the_port(case, x64):
    start, pooling = case.split()
    golden = GOLDENS[case]
    config = preset(
        "--precision=float64",
        f"--steps={len(golden) - 1}",
        "--print_every=1",
        f"--pooling={pooling}",
        "--style_mix=0.3,0.7",
        f"--init={start}",
    )
    styles = [made_up.picture(2, 36, 32), made_up.picture(3, 32, 48)]
    init = made_up.noise() if start == "noise" else None
    result = task.stylize(jax.random.key(0), params(), made_up.picture(1), styles, config, init=init)
    found = [row["total"] for row in result.trace]
    np.testing.assert_allclose(found, golden, rtol=1e-9)
    assert golden[-1] < 0.5 * golden[0]  # a trajectory, not a standstill
    assert result.best_step == int(np.argmin(golden))
    assert result.stopped == ""


def test_one_of_the_trajectories_climbs():
    """The port saves its last picture, whatever its loss; here the best one is kept."""
    assert any(max(golden) > 10 * golden[0] for golden in GOLDENS.values())
