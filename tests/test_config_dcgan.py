import dataclasses
import math

import pytest

from jnst.config import GAN_AXES, DcganConfig, DcganSampleConfig, check, check_gan, gan_runs
from jnst.errors import InputError

GOOD = DcganConfig(data="pictures", output="run")


@pytest.mark.parametrize("config", [DcganConfig(), DcganSampleConfig()])
def test_defaults_are_valid_and_every_option_has_help(config):
    check(config)
    for field in dataclasses.fields(config):
        assert field.metadata["help"].endswith("."), field.name


def test_the_axes_are_flags_and_each_gives_a_network():
    assert set(GAN_AXES) <= {field.name for field in dataclasses.fields(DcganConfig)}
    axes, runs = gan_runs(dataclasses.replace(GOOD, axis=("learning_rate=1e-4,2e-4", "beta1=0,0.5"), seeds=2, seed=7))
    assert [axis.flag for axis in axes] == ["learning_rate", "beta1"]
    assert [(run.learning_rate, run.beta1, run.seed) for run in runs[:3]] == [
        (1e-4, 0, 7),
        (1e-4, 0, 8),
        (1e-4, 0.5, 7),
    ]
    assert len(runs) == 8
    assert all(run.axis == () and run.seeds == 1 for run in runs)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": ""}, "--data is missing"),
        ({"output": ""}, "--output is missing"),
        ({"size": 48}, "--size=48: expected one of 28, 32, 64"),
        ({"batch": 1}, "--batch=1: expected a number not below 2"),
        ({"learning_rate": math.nan}, "--learning_rate=nan: expected a finite number"),
        ({"beta1": 1.0}, "--beta1=1.0: expected a number not above 0.9999"),
        ({"axis": ("width=4,8",)}, "--axis=width=4,8: width is of the whole program"),
        ({"axis": ("beta1=2,0.5",)}, "--beta1=2.0: expected a number not above"),
        ({"axis": ("seed=1,2",), "seeds": 2}, "--seeds=2: expected 1 where seed is an axis"),
        ({"seed": 2**32 - 1, "seeds": 2}, "--seed=4294967296: expected a number not above 4294967295"),
        ({"loss": "wgan"}, "--loss=wgan: expected one of bce, saturating, lsgan"),
    ],
)
def test_what_is_wrong_is_named(changes, match):
    check_gan(GOOD)
    with pytest.raises(InputError, match=match):
        check_gan(dataclasses.replace(GOOD, **changes))


def test_the_halves_that_are_static():
    config = dataclasses.replace(GOOD, size=64, width=8, discriminator="dropout", schedule="linear", average_decay=0.9)
    assert (config.net.size, config.net.width, config.net.norm) == (64, 8, "dropout")
    generator, discriminator = config.training(30)
    assert (generator.steps, generator.schedule, generator.average_decay) == (30, "linear", 0.9)
    assert discriminator == dataclasses.replace(generator, average_decay=0.0)
    assert config.updates(10) == 500
    assert dataclasses.replace(config, steps=7).updates(10) == 7
