import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jnst import transforms
from jnst.errors import InputError

# Compiled whole: op by op, compiling would take most of the time.
scale = jax.jit(transforms.scale, static_argnames=("factors", "value"))
rotate = jax.jit(transforms.rotate, static_argnames=("degrees", "value"))
standard = jax.jit(transforms.standard)


@pytest.fixture
def key():
    return jax.random.key(0)


def _each(choices):
    """Every one of them, with a key that draws it."""
    drawn = {}
    for seed in range(40):
        key = jax.random.key(seed)
        drawn.setdefault(int(jax.random.randint(key, (), 0, len(choices))), key)
    return [(choices[index], drawn[index]) for index in range(len(choices))]


def _sampled(image, row, column, value):
    """A picture at any places, bilinearly, `value` all around: float64."""
    height, width, _ = image.shape
    framed = np.pad(image, ((1, 2), (1, 2), (0, 0)), constant_values=value)
    row, column = np.clip(row, -1, height) + 1, np.clip(column, -1, width) + 1
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, across = (row - top)[..., None], (column - left)[..., None]
    upper = (1 - across) * framed[top, left] + across * framed[top, left + 1]
    lower = (1 - across) * framed[top + 1, left] + across * framed[top + 1, left + 1]
    return (1 - down) * upper + down * lower


def _centered(height, width):
    return np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")


def _scaled(image, factor, value=0.5):
    height, width, _ = image.shape
    down, across = _centered(height, width)
    return _sampled(image, down / factor + (height - 1) / 2, across / factor + (width - 1) / 2, value)


def _turned(image, degrees, value=0.5):
    height, width, _ = image.shape
    down, across = _centered(height, width)
    # Rows go down: a turn counterclockwise, seen, takes the place (right, up) from the one that is turned back.
    source = (across + 1j * -down) * np.exp(-1j * np.deg2rad(degrees))
    return _sampled(image, -source.imag + (height - 1) / 2, source.real + (width - 1) / 2, value)


@pytest.mark.slow
def test_offsets_cover_the_range_with_both_ends(key):
    drawn = jax.jit(jax.vmap(lambda key: transforms.offset(key, 3)))(jax.random.split(key, 7000))
    assert drawn.shape == (7000, 2)
    assert drawn.dtype == jnp.int32
    counts = np.zeros((7, 7), int)
    np.add.at(counts, tuple(np.asarray(drawn).T + 3), 1)
    assert counts.sum() == 7000
    # 7000 / 49 = 143 of each pair, give or take 12: the axes are drawn apart.
    assert 90 < counts.min() <= counts.max() < 200


def test_an_offset_of_none_is_zero(key):
    assert transforms.offset(key, 0).tolist() == [0, 0]


@pytest.mark.parametrize("offset", [(0, 0), (2, -1), (-4, 9), (5, 7)])
def test_shift_rolls_and_is_undone_exactly(rng, offset):
    image = rng.uniform(size=(5, 7, 3)).astype(np.float32)
    shifted = jax.jit(transforms.shift)(image, jnp.array(offset))
    np.testing.assert_array_equal(shifted, np.roll(image, offset, (0, 1)))
    np.testing.assert_array_equal(transforms.shift(shifted, -jnp.array(offset)), image)


@pytest.mark.slow
def test_jitter_is_the_shift_by_its_offset_and_its_gradient_is_shifted_back(rng, key):
    image, weight = (jnp.asarray(rng.standard_normal((8, 11, 3)), jnp.float32) for _ in range(2))
    through = jax.jit(lambda key, x: transforms.jitter(key, x, most=4))
    gradient = jax.jit(jax.grad(lambda x, key: jnp.sum(weight * transforms.jitter(key, x, most=4))))
    offsets = set()
    for one in jax.random.split(key, 6):
        offset = tuple(np.asarray(transforms.offset(one, 4)).tolist())
        offsets.add(offset)
        np.testing.assert_array_equal(through(one, image), np.roll(image, offset, (0, 1)))
        back = np.roll(weight, np.negative(offset), (0, 1))
        assert np.asarray(gradient(image, one)).tobytes() == back.tobytes()
    assert len(offsets) > 3


@pytest.mark.parametrize("value", [0.5, 0.0])
def test_pad_frames(rng, value):
    image = rng.uniform(size=(2, 3, 3)).astype(np.float32)
    expected = np.full((8, 9, 3), value, np.float32)
    expected[3:5, 3:6] = image
    np.testing.assert_array_equal(transforms.pad(image, width=3, value=value), expected)
    np.testing.assert_array_equal(transforms.pad(image, width=0), image)


@pytest.mark.slow
def test_crop_jitter_takes_every_window(key):
    image = jnp.arange(5 * 6.0).reshape(5, 6, 1)
    crops = jax.jit(jax.vmap(lambda key: transforms.crop_jitter(key, image, most=2)))(jax.random.split(key, 900))
    assert crops.shape == (900, 3, 4, 1)
    first, counts = np.unique(np.asarray(crops)[:, 0, 0, 0], return_counts=True)
    assert first.tolist() == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert counts.min() > 60  # 100 of each, give or take 9
    for crop in np.asarray(crops)[:20]:
        down, across = divmod(int(crop[0, 0, 0]), 6)
        np.testing.assert_array_equal(crop, image[down : down + 3, across : across + 4])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(6, 9), (1, 3)])
def test_a_factor_of_one_and_an_angle_of_none_change_no_bit(rng, key, size):
    image = rng.uniform(size=(*size, 3)).astype(np.float32)
    np.testing.assert_array_equal(scale(key, image, factors=(1,)), image)
    for _, one in _each((0, 360, -720)):
        np.testing.assert_array_equal(rotate(one, image, degrees=(0, 360, -720)), image)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(6, 6), (7, 7), (1, 1)])
def test_right_angles_are_exact_and_counterclockwise(rng, size):
    image = rng.uniform(size=(*size, 3)).astype(np.float32)
    angles = (90, 180, 270, -90, 810)
    for angle, key in _each(angles):
        turned = rotate(key, image, degrees=angles)
        np.testing.assert_array_equal(turned, np.rot90(image, angle // 90))


@pytest.mark.slow
def test_right_angles_are_exact_in_float64_too(x64, rng):
    image, angles = rng.uniform(size=(401, 401, 1)), (90, 180, 270)
    for angle, key in _each(angles):
        np.testing.assert_array_equal(rotate(key, image, degrees=angles), np.rot90(image, angle // 90))


@pytest.mark.parametrize("size", [(6, 9), (5, 4)])
def test_half_a_turn_is_exact_for_every_size(rng, key, size):
    image = rng.uniform(size=(*size, 3)).astype(np.float32)
    np.testing.assert_array_equal(rotate(key, image, degrees=(180,)), image[::-1, ::-1])


def test_a_quarter_turn_of_a_wide_picture_cuts_its_sides_off(rng, key):
    image = rng.uniform(size=(4, 8, 3)).astype(np.float32)
    turned = rotate(key, image, degrees=(90,))
    np.testing.assert_array_equal(turned[:, 2:6], np.rot90(image[:, 2:6]))
    np.testing.assert_array_equal(turned[:, :2], 0.5)
    np.testing.assert_array_equal(turned[:, 6:], 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(6, 9), (5, 4)])
def test_scaling_equals_the_reference(x64, rng, key, size):
    image = rng.uniform(size=(*size, 3))
    factors = (2, 0.5, 1.1, 0.93)
    for factor, one in _each(factors):
        scaled = scale(one, image, factors=factors)
        np.testing.assert_allclose(scaled, _scaled(image, factor), atol=1e-14)
    around = scale(key, image, factors=(0.5,), value=-2)
    np.testing.assert_allclose(around, _scaled(image, 0.5, -2), atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(6, 9), (5, 4)])
def test_turning_equals_the_reference(x64, rng, key, size):
    image = rng.uniform(size=(*size, 3))
    angles = (7, -10, 33.3, 135, 200)
    for angle, one in _each(angles):
        turned = rotate(one, image, degrees=angles)
        np.testing.assert_allclose(turned, _turned(image, angle), atol=1e-13)
    around = rotate(key, image, degrees=(45,), value=2)
    np.testing.assert_allclose(around, _turned(image, 45, 2), atol=1e-13)


def test_twice_as_large_by_hand(x64, key):
    image = jnp.array([0.0, 1.0, 3.0, 7.0])[None, :, None]
    # Of -0.75, -0.25, 0.25 and 0.75 from the center, where 1 and 3 are at -0.5 and 0.5.
    assert scale(key, image, factors=(2,))[0, :, 0].tolist() == [0.75, 1.5, 2.5, 4.0]


@pytest.mark.slow
def test_float32_is_kept_and_bfloat16_placed_rightly(rng, key):
    coarse = jnp.asarray(rng.uniform(size=(300, 2, 3)), jnp.bfloat16)  # which counts to 256
    np.testing.assert_array_equal(rotate(key, coarse, degrees=(0,)), coarse)
    np.testing.assert_array_equal(scale(key, coarse, factors=(1,)), coarse)
    for kind in (jnp.float32, jnp.bfloat16):
        image = jax.ShapeDtypeStruct((9, 7, 3), kind)
        assert jax.eval_shape(transforms.standard, key, image) == jax.ShapeDtypeStruct((21, 19, 3), kind)


@pytest.mark.slow
def test_choices_are_drawn_as_often_as_they_are_named(key):
    image = jnp.zeros((3, 3, 1)).at[0, 0].set(1)
    turned = jax.jit(jax.vmap(lambda key: transforms.rotate(key, image, degrees=(0, 90, 180, 0))))(
        jax.random.split(key, 2000)
    )
    counts = np.asarray(turned)[..., 0].sum(0)
    assert counts.sum() == 2000
    assert abs(counts[0, 0] - 1000) < 100  # give or take 22
    assert abs(counts[2, 0] - 500) < 90
    assert abs(counts[2, 2] - 500) < 90
    image = jnp.zeros((1, 9, 1)).at[0, 6].set(1)
    scaled = jax.jit(jax.vmap(lambda key: transforms.scale(key, image, factors=(1, 2))))(jax.random.split(key, 2000))
    once = np.asarray(scaled)[:, 0, 6, 0]
    assert set(once.tolist()) == {0.0, 1.0}
    assert abs(once.sum() - 1000) < 100


TRANSFORMS = {
    "jitter": lambda key, x: transforms.jitter(key, x, most=3),
    "crop_jitter": lambda key, x: transforms.crop_jitter(key, x, most=2),
    "scale": lambda key, x: transforms.scale(key, x, factors=(0.7, 1.0, 1.6)),
    "rotate": lambda key, x: transforms.rotate(key, x, degrees=(-25, 0, 10, 77)),
    "standard": transforms.standard,
}
SLOW = pytest.param("standard", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crop_jitter", "scale", "rotate"])
def test_gradients_are_finite_differences(x64, rng, key, name):
    image = jnp.asarray(rng.uniform(size=(6, 5, 3)))
    through = jax.jit(lambda x: TRANSFORMS[name](key, x))
    check_grads(through, (image,), 1, ["fwd", "rev"], atol=1e-7, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jitter", "crop_jitter", "scale", "rotate", SLOW])
def test_vmapped_over_keys_equals_looped_and_a_key_gives_the_same_again(rng, key, name):
    image = jnp.asarray(rng.uniform(size=(6, 5, 3)), jnp.float32)
    keys = jax.random.split(key, 5)
    one = jax.jit(TRANSFORMS[name])
    many = jax.jit(jax.vmap(TRANSFORMS[name], (0, None)))(keys, image)
    looped = [np.asarray(one(key, image)) for key in keys]
    np.testing.assert_allclose(many, looped, atol=1e-6)
    np.testing.assert_array_equal(one(keys[2], image), looped[2])
    assert any((result != looped[0]).any() for result in looped)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scale", "rotate", SLOW])
def test_gradients_have_the_same_bits_on_every_call(rng, key, name):
    image = jnp.asarray(rng.standard_normal((90, 70, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(TRANSFORMS[name](key, x) ** 3)))
    assert len({np.asarray(gradient(image)).tobytes() for _ in range(20)}) == 1


@pytest.mark.slow
def test_standard_is_the_chain_of_its_parts(x64, rng, key):
    image = rng.uniform(size=(9, 6, 3))
    np.testing.assert_allclose(standard(key, np.full((9, 6, 3), 0.5)), 0.5, atol=1e-14)
    keys = jax.random.split(key, 300)
    drawn = jax.jit(jax.vmap(lambda key: jax.random.randint(jax.random.split(key, 4)[2], (), 0, 26)))(keys)
    drawn = np.asarray(drawn).tolist()
    for one in (keys[drawn.index(angle)] for angle in (0, 20, *range(21, 26))):  # -10, 10 and 0 five more times
        first, factor, angle, last = jax.random.split(one, 4)
        draw = lambda key, choices: choices[int(jax.random.randint(key, (), 0, len(choices)))]  # noqa: E731
        window = lambda key, most: jax.random.randint(key, (2,), 0, most + 1)  # noqa: E731
        expected = np.pad(image, ((12, 12), (12, 12), (0, 0)), constant_values=0.5)
        down, across = window(first, 8)
        expected = expected[down : down + 25, across : across + 22]
        expected = _scaled(expected, draw(factor, np.linspace(0.9, 1.1, 11)))
        expected = _turned(expected, draw(angle, [*range(-10, 11), 0, 0, 0, 0, 0]))
        down, across = window(last, 4)
        expected = expected[down : down + 21, across : across + 18]
        np.testing.assert_allclose(standard(one, image), expected, atol=1e-13)


@pytest.mark.parametrize("most", [-1, 1.5, True])
def test_pixels_are_counted(key, most):
    image = jnp.zeros((4, 4, 3))
    expected = f"most={most!r}: expected a whole number of pixels, 0 or more"
    with pytest.raises(InputError, match=expected):
        transforms.jitter(key, image, most=most)
    with pytest.raises(InputError, match=expected):
        transforms.crop_jitter(key, image, most=most)
    with pytest.raises(InputError, match=f"width={most!r}: expected a whole number"):
        transforms.pad(image, width=most)


def test_a_crop_leaves_something(key):
    assert transforms.crop_jitter(key, jnp.zeros((4, 5, 3)), most=3).shape == (1, 2, 3)
    with pytest.raises(InputError, match="most=4: expected less than the sides of the image, which has 4x5 pixels"):
        transforms.crop_jitter(key, jnp.zeros((4, 5, 3)), most=4)


@pytest.mark.parametrize("choices", [(), (1.0, float("nan")), (float("inf"),), 2.0])
def test_choices_are_numbers(key, choices):
    with pytest.raises(InputError, match=r"factors=.*: expected one number or more"):
        transforms.scale(key, jnp.zeros((4, 4, 3)), factors=choices)
    with pytest.raises(InputError, match=r"degrees=.*: expected one number or more"):
        transforms.rotate(key, jnp.zeros((4, 4, 3)), degrees=choices)


@pytest.mark.parametrize("factor", [0, -1.1])
def test_factors_are_above_zero(key, factor):
    with pytest.raises(InputError, match=r"factors=\(1, .*\): expected numbers above 0"):
        transforms.scale(key, jnp.zeros((4, 4, 3)), factors=(1, factor))
