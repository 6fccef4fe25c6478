import dataclasses
import math
import subprocess
import sys

import pytest

from jnst import config
from jnst.config import HAVE_BETA2, OPTIMIZERS, StylizeConfig
from jnst.config.grid import ALONE
from jnst.errors import InputError

FIELDS = dataclasses.fields(StylizeConfig)
FLOATS = [field.name for field in FIELDS if type(field.default) is float]
NUMBERS = [field.name for field in FIELDS if type(field.default) in (int, float)]
CHOICES = [field for field in FIELDS if field.metadata["choices"]]


def test_defaults_are_valid_and_every_option_has_help():
    config.check(StylizeConfig())
    for field in FIELDS:
        assert field.metadata["help"].endswith("."), field.name


def test_every_float_has_bounds():
    for field in FIELDS:
        if field.name in FLOATS:
            lower, above = field.metadata["lower"], field.metadata["above"]
            assert lower is not None or above is not None
            assert field.metadata["upper"] is not None


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, 1e300, True, "1", None])
def test_float_that_is_not_finite_or_out_of_range_is_refused(name, value):
    with pytest.raises(InputError, match=f"^--{name}=.*: expected "):
        config.check(StylizeConfig(**{name: value}))


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in FLOATS])
@pytest.mark.parametrize("value", [-1, 0.5, 1.0, True, "1", None])
def test_whole_number_of_another_kind_or_sign_is_refused(name, value):
    with pytest.raises(InputError, match=f"^--{name}=.*: expected "):
        config.check(StylizeConfig(**{name: value}))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_range_ends_are_allowed(field):
    for bound in ("lower", "upper"):
        if field.metadata[bound] is not None:
            config.check(StylizeConfig(**{field.name: field.metadata[bound]}))
    if field.metadata["above"] is not None:
        with pytest.raises(InputError, match="greater than"):
            config.check(StylizeConfig(**{field.name: field.metadata["above"]}))


@pytest.mark.parametrize("field", CHOICES, ids=lambda field: field.name)
def test_choices_are_checked_against_their_table_and_named(field):
    for choice in field.metadata["choices"]:
        config.check(StylizeConfig(**{field.name: choice}))
    wrong = 7 if type(field.default) is int else "wrong"
    with pytest.raises(InputError, match=f"^--{field.name}={wrong}: expected one of ") as caught:
        config.check(StylizeConfig(**{field.name: wrong}))
    assert all(str(choice) in str(caught.value) for choice in field.metadata["choices"])


def test_whole_number_serves_as_a_float():
    config.check(StylizeConfig(style_weight=10))


def test_layers_are_read_with_their_weights():
    assert config.parse_layers("x", "conv4_2") == (("conv4_2",), (1.0,))
    assert config.parse_layers("x", "relu1_1, relu1_2,relu3_4:0") == (
        ("relu1_1", "relu1_2", "relu3_4"),
        (1 / 3, 1 / 3, 0.0),
    )


def test_what_follows_a_block_is_a_layer_too():
    assert config.parse_layers("x", "pool1,pool4:2") == (("pool1", "pool4"), (0.5, 2.0))
    for name in ("pool5", "pool0", "pool", "pool11", "pool1_2"):
        with pytest.raises(InputError, match="^--x=.* is no layer of VGG-19; expected .*pool1 to pool4$"):
            config.parse_layers("x", name)


def test_layers_stand_by_depth():
    assert len(config.LAYERS) == len(set(config.LAYERS)) == 2 * 16 + 4
    assert config.LAYERS[:6] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1")
    needed = [config.CONVOLUTIONS.index(config.convolution_of(layer)) for layer in config.LAYERS]
    halvings = [config.halvings_of(layer) for layer in config.LAYERS]
    assert needed == sorted(needed)
    assert halvings == sorted(halvings)
    assert {layer: config.convolution_of(layer) for layer in ("conv5_4", "relu2_1", "pool2", "pool4")} == {
        "conv5_4": "conv5_4",
        "relu2_1": "conv2_1",
        "pool2": "conv2_2",
        "pool4": "conv4_4",
    }


def test_only_the_content_may_have_no_layer():
    assert config.parse_layers("x", "", may_be_empty=True) == ((), ())
    config.check_config(StylizeConfig(content_layers=""), count=1)
    with pytest.raises(InputError, match="^--style_layers=: expected at least one layer"):
        config.check_config(StylizeConfig(style_layers=""), count=1)


def test_a_torus_is_not_cut():
    for tile in ("auto", "0"):
        config.check_config(StylizeConfig(tile=tile, padding="wrap"), count=1)
    with pytest.raises(InputError, match="^--tile=512: has no --padding=wrap; expected --tile=0, or another padding$"):
        config.check_config(StylizeConfig(tile="512", padding="wrap"), count=1)
    assert "wrap" not in config.PADDINGS  # no weights were trained with it


def test_every_layer_of_the_network_has_two_names():
    for block, count in enumerate((2, 2, 4, 4, 4), 1):
        for index in range(1, count + 1):
            for kind in ("conv", "relu"):
                name = f"{kind}{block}_{index}"
                assert config.parse_layers("x", name)[0] == (name,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "relu6_1",
        "relu1_3",
        "relu0_1",
        "relu3_5",
        "relu1",
        "pool1_1",
        "relu01_1",
        "relu1_1,",
        "Relu1_1",
    ]
    + ["relu1_1:x", "relu1_1:", "relu1_1:-1", "relu1_1:nan", "relu1_1:inf", "relu1_1:1:2", "relu1_1,relu1_1"]
    + ["relu1_1:1,relu1_1:2", "relu1_²", "relu-1_1", "relu1_" + "9" * 5000],
)
def test_bad_layers_are_refused_by_flag(text):
    with pytest.raises(InputError, match="^--style_layers="):
        config.parse_layers("style_layers", text)


def test_mix_is_normalized():
    assert config.parse_mix("", 4) == (0.25,) * 4
    assert config.parse_mix("3, 1", 2) == (0.75, 0.25)
    assert config.parse_mix("0,2", 2) == (0.0, 1.0)


@pytest.mark.parametrize("text", ["1", "1,1,1", "1,", "1,x", "1,-1", "nan,1", "1,inf", "0,0", "1e308,1e308"])
def test_bad_mix_is_refused(text):
    with pytest.raises(InputError, match=f"^--style_mix={text}: "):
        config.parse_mix(text, 2)


def test_config_images_and_weights_come_without_jax():
    code = "import sys, jnst, jnst.config, jnst.images, jnst.weights; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("text", "texts", "values"),
    [
        ("style_weight=1e2, 1e3", ("1e2", "1e3"), (100.0, 1000.0)),
        ("seed=0,1", ("0", "1"), (0, 1)),
        ("style=a.jpg,b.jpg", ("a.jpg", "b.jpg"), ("a.jpg", "b.jpg")),
        ("style=a.jpg,b.jpg;c.jpg", ("a.jpg,b.jpg", "c.jpg"), ("a.jpg,b.jpg", "c.jpg")),
        ("style=a.jpg,b.jpg;", ("a.jpg,b.jpg",), ("a.jpg,b.jpg",)),
        (r"style=a\,b.jpg,c.jpg", (r"a\,b.jpg", "c.jpg"), (r"a\,b.jpg", "c.jpg")),
        (r"content=a\,b.jpg,c.jpg", ("a,b.jpg", "c.jpg"), ("a,b.jpg", "c.jpg")),
        ("content=a,b.jpg;c.jpg", ("a,b.jpg", "c.jpg"), ("a,b.jpg", "c.jpg")),
        ("style_mix=0.3,0.7;0.5,0.5", ("0.3,0.7", "0.5,0.5"), ("0.3,0.7", "0.5,0.5")),
        ("content=a=b.jpg", ("a=b.jpg",), ("a=b.jpg",)),
    ],
)
def test_axes_are_taken_apart(text, texts, values):
    (axis,) = config.parse_axes((text,))
    assert (axis.flag, axis.texts, axis.values) == (text.partition("=")[0], texts, values)
    assert [type(value) for value in axis.values] == [type(value) for value in values]


def test_every_flag_that_changes_a_picture_may_be_an_axis():
    for field in FIELDS:
        text = f"{field.name}={field.default if field.default != '' else 'x'}"
        if field.name in config.NO_AXES + ALONE:
            with pytest.raises(InputError, match="changes a picture|of single pictures"):
                config.parse_axes((text,))
        else:
            assert config.parse_axes((text.rstrip(","),))[0].flag == field.name


def test_beta2_is_refused_where_the_optimizer_has_none():
    for name in OPTIMIZERS:
        chosen = StylizeConfig(optimizer=name, beta2=0.9)
        if name in HAVE_BETA2:
            config.check_config(chosen, count=1)
        else:
            with pytest.raises(InputError, match=f"^--beta2=0.9: expected 0 with --optimizer={name}$"):
                config.check_config(chosen, count=1)


@pytest.mark.parametrize("tile", ["auto", "0", "16", "65535"])
def test_tiles_are_auto_none_or_a_size(tile):
    config.check_config(StylizeConfig(tile=tile), count=1)


@pytest.mark.parametrize("tile", ["", "15", "65536", "-32", "64.0", "none", "AUTO", "²56", "9" * 5000])
def test_any_other_tile_is_refused_by_flag(tile):
    with pytest.raises(
        InputError, match=f"^--tile={tile[:99]}.*: expected auto, 0, or a whole number from 16 to 65535$"
    ):
        config.check_config(StylizeConfig(tile=tile), count=1)


def test_a_line_search_takes_no_tiles():
    config.check_config(StylizeConfig(line_search="zoom"), count=1)
    config.check_config(StylizeConfig(line_search="zoom", tile="0"), count=1)
    with pytest.raises(InputError, match="^--tile=64: has no line search"):
        config.check_config(StylizeConfig(line_search="zoom", tile="64"), count=1)
