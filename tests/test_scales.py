import pytest

from jnst import config
from jnst.config import GridConfig, Scale, StylizeConfig
from jnst.config.choices import SCALE_FACTORS
from jnst.errors import InputError


def plan(longest, **flags):
    return config.plan_scales(StylizeConfig(**{"steps": 20, **flags}), longest)


def sizes(longest, **flags):
    return [scale.size for scale in plan(longest, **flags)]


@pytest.mark.parametrize("end", [512, 100, 129, 640, 777, 1024, 1448])
def test_factor_sqrt2_gives_the_sizes_of_style_transfer_pytorch(end):
    expected, i, scale = set(), 0, end  # its loop, from 128 on
    while scale >= 128:
        expected.add(scale)
        i += 1
        scale = round(end / pow(2, i / 2))
    # Of a picture that is smaller than the least size, it itself.
    assert sizes(end, scales="all", min_size=128, scale_factor="sqrt2") == (sorted(expected) or [end])
    if end == 512:
        assert sorted(expected) == [128, 181, 256, 362, 512]


@pytest.mark.parametrize(
    ("longest", "expected"),
    [(1, [1]), (511, [511]), (512, [512]), (513, [256, 513]), (1024, [256, 512, 1024]), (700, [350, 700])],
)
def test_auto_is_one_scale_up_to_512_pixels_and_all_above(longest, expected):
    assert sizes(longest) == expected
    if longest > 512:
        assert sizes(longest, scales="all") == expected


def test_all_goes_down_to_the_least_size():
    assert sizes(512, scales="all") == [256, 512]
    assert sizes(512, scales="all", min_size=257) == [512]
    assert sizes(512, scales="all", min_size=64) == [64, 128, 256, 512]
    assert sizes(200, scales="all") == [200]


def test_a_number_of_scales_goes_below_the_least_size_but_not_below_a_pixel():
    assert sizes(512, scales="1") == [512]
    assert sizes(512, scales="3") == [128, 256, 512]
    assert sizes(512, scales="3", scale_factor="sqrt2") == [256, 362, 512]
    assert sizes(5, scales="16") == [1, 2, 5]


@pytest.mark.parametrize("factor", SCALE_FACTORS)
def test_sizes_grow_from_the_least_to_the_picture_s(factor):
    for longest in (1, 2, 3, 255, 257, 1000, 4001, 65535):
        for least in (1, 2, 100, 256):
            found = sizes(longest, scales="all", min_size=least, scale_factor=factor)
            assert found == sorted(set(found))
            assert found[-1] == longest
            assert found[0] >= min(least, longest)
            if longest >= least:  # nothing is left out that is large enough
                assert round(longest / SCALE_FACTORS[factor] ** len(found)) < least or found[0] == 1


def test_first_steps_are_those_of_the_first_of_several():
    assert plan(512, scales="all", min_size=128, first_steps=7) == (Scale(128, 7), Scale(256, 20), Scale(512, 20))
    assert plan(512, scales="all", min_size=128) == (Scale(128, 20), Scale(256, 20), Scale(512, 20))
    assert plan(512, first_steps=7) == (Scale(512, 20),)
    assert plan(512, scales="1", first_steps=7) == (Scale(512, 20),)
    assert plan(512, scales="256,300:9", first_steps=7) == (Scale(256, 7), Scale(300, 9), Scale(512, 20))
    assert plan(512, scales="256:5,512", first_steps=7) == (Scale(256, 5), Scale(512, 20))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("256:100,512:50,1024:7", [(256, 100), (512, 50), (1024, 7)]),
        ("256:100,512:50", [(256, 100), (512, 50), (1024, 20)]),
        ("256, 512:50", [(256, 20), (512, 50), (1024, 20)]),
        ("256:100", [(256, 100), (1024, 20)]),
        ("1024:100", [(1024, 100)]),
        ("3,5,1024", [(3, 20), (5, 20), (1024, 20)]),
    ],
)
def test_sizes_and_steps_can_be_named_one_by_one(text, expected):
    assert plan(1024, scales=text) == tuple(Scale(*pair) for pair in expected)
    assert config.is_explicit(StylizeConfig(scales=text))
    config.check_scales(StylizeConfig(scales=text, size=1024))


@pytest.mark.parametrize("text", ["auto", "all", "1", "16"])
def test_words_and_numbers_are_not_explicit(text):
    assert not config.is_explicit(StylizeConfig(scales=text))
    config.check_scales(StylizeConfig(scales=text, size=0))


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "17", "256", "-1", "1.5", "many", "Auto", "auto,512", "256,", ",256", "256,x", "256;512", "256x512"]
    + ["512,256", "256,256", "256:10,256:20", "0,512", "256:0,512", "256:,512", ":10,512", "256:1:2,512", "256:-1,512"]
    + ["256:1e2,512", "²,512", "10000001,10000002", "256:10000001,512"],
)
def test_what_is_no_list_of_growing_sizes_is_refused_by_flag(text):
    chosen = StylizeConfig(scales=text)
    for refused in (config.check_scales, config.is_explicit, lambda chosen: config.plan_scales(chosen, 512)):
        with pytest.raises(InputError, match=f"^--scales={text}: expected auto, all, a number of scales from 1 to 16"):
            refused(chosen)


@pytest.mark.parametrize("start", ["", "256:", "256,"])
def test_a_number_that_python_refuses_to_read_is_refused_by_flag(start):
    with pytest.raises(InputError, match=f"^--scales={start}99999"):
        config.check_scales(StylizeConfig(scales=start + "9" * 5000))


def test_sizes_larger_than_the_picture_are_refused():
    for text in ("256,513", "256:10,513:10", "513:10"):
        with pytest.raises(InputError, match=f"^--scales={text}: 513 is larger than the picture, 512 pixels"):
            config.check_scales(StylizeConfig(scales=text, size=512))
        # The picture's own size is known when it is read.
        config.check_scales(StylizeConfig(scales=text, size=0))
        with pytest.raises(InputError, match="larger than the picture, 300 pixels"):
            plan(300, scales=text)


def test_a_grid_has_one_scale():
    assert config.plan_scales(GridConfig(), 4000) == (Scale(4000, GridConfig().steps),)
    for flag, value in (("scales", "2"), ("scales", "auto"), ("tile", "auto"), ("average_decay", 0.9)):
        with pytest.raises(InputError, match=f"^--{flag}={value}: "):
            config.check_grid(GridConfig(**{flag: value}))
