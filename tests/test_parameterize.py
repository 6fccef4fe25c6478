import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jnst import parameterize
from jnst.errors import InputError

SIZES = [(6, 8), (7, 5), (1, 4), (3, 1), (1, 1)]
# Compiled whole: op by op, compiling would take most of the time.
fourier_image = jax.jit(parameterize.fourier_image, static_argnames="decorrelate")
pixel_image = jax.jit(parameterize.pixel_image, static_argnames="decorrelate")
hartley = jax.jit(parameterize.hartley)


def _before_sigmoid(image):
    image = np.asarray(image)
    return np.log(image) - np.log1p(-image)


def _gain(height, width, decay):
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return np.maximum(frequency, 1 / max(height, width)) ** -decay


def _cas_cas(image):
    """Both axes' Hartley transforms of a real `[H, W, c]`, by way of Fourier's."""
    whole = np.fft.fft2(image, axes=(0, 1), norm="ortho")
    whole = whole.real - whole.imag  # cas of the sum of both angles
    turn = lambda x, *axes: np.roll(np.flip(x, axes), 1, axes)  # noqa: E731
    return (whole + turn(whole, 0) + turn(whole, 1) - turn(whole, 0, 1)) / 2


@pytest.mark.parametrize("size", [*SIZES, (64, 45)])
def test_hartley_is_its_own_inverse_and_keeps_lengths_and_angles(x64, rng, size):
    a, b = (jnp.asarray(rng.standard_normal((*size, 3))) for _ in range(2))
    np.testing.assert_allclose(hartley(hartley(a)), a, atol=1e-12)
    np.testing.assert_allclose(np.vdot(hartley(a), hartley(b)), np.vdot(a, b), atol=1e-11)
    np.testing.assert_allclose(np.vdot(hartley(a), b), np.vdot(a, hartley(b)), atol=1e-11)


@pytest.mark.parametrize("size", SIZES)
def test_hartley_equals_the_reference(x64, rng, size):
    image = rng.standard_normal((*size, 3))
    np.testing.assert_allclose(hartley(image), _cas_cas(image), atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("length", [512, 1023])
def test_the_basis_is_exact_for_long_sides_too(x64, length):
    through = hartley(np.eye(length)[-2][:, None, None])[:, 0, 0]
    angle = 2 * np.pi * -2 * np.arange(length) / length
    np.testing.assert_allclose(through, (np.cos(angle) + np.sin(angle)) / length**0.5, atol=1e-14)


@pytest.mark.parametrize(("height", "width", "down", "across"), [(16, 24, 0, 3), (16, 24, 5, 0), (9, 15, 0, 0)])
def test_one_number_makes_one_wave(x64, height, width, down, across):
    spectrum = np.zeros((height, width, 3))
    spectrum[down, across, 1] = 0.2
    wave = _before_sigmoid(fourier_image(spectrum, decorrelate=False))
    np.testing.assert_allclose(wave[..., [0, 2]], 0, atol=1e-12)
    angle = 2 * np.pi * (down * np.arange(height)[:, None] / height + across * np.arange(width)[None] / width)
    frequency = max(np.hypot(down / height, across / width), 1 / max(height, width))
    amplitude = 0.2 / frequency / np.sqrt(8 * height * width)
    np.testing.assert_allclose(wave[..., 1], amplitude * (np.cos(angle) + np.sin(angle)), atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [1.0, 0.0, 1.7])
def test_the_image_s_transform_is_the_scaled_spectrum(x64, rng, size, decay):
    spectrum = rng.standard_normal((*size, 3))
    image = fourier_image(spectrum, decay=decay, decorrelate=False)
    expected = _gain(*size, decay)[..., None] * spectrum / np.sqrt(8)
    np.testing.assert_allclose(_cas_cas(_before_sigmoid(image)), expected, atol=1e-11)


@pytest.mark.slow
def test_powers_of_white_noise_fall_as_one_over_the_frequency_squared(x64):
    spectrum = parameterize.fourier_start(jax.random.key(0), (64, 64))
    image = _before_sigmoid(fourier_image(np.asarray(spectrum, float), decorrelate=False))
    power = (np.abs(np.fft.fft2(image, axes=(0, 1), norm="ortho")) ** 2).mean(-1)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 0.7)):
        ring = (low <= frequency) & (frequency < high)
        assert 0.8 < (power * frequency**2)[ring].mean() / (0.01**2 / 8) < 1.2


def _spread(waves):
    """`J J^T` of waves `[numbers, H, W]` with all horizontal frequencies, and with neither 0 nor 1/2."""
    spectra = np.fft.fft(waves, axis=-1)
    spectra[..., [0, waves.shape[-1] // 2]] = 0
    between = np.fft.ifft(spectra, axis=-1).real
    return [np.einsum("nhw,nij->hwij", x, x) for x in (waves - between, between)]


def test_lucid_s_waves_are_the_same_but_for_two_columns(x64):
    height, width = 6, 8
    half = np.zeros((2 * height * (width // 2 + 1), height, width // 2 + 1), complex)
    numbers = half.reshape(2, -1, *half.shape[1:])
    numbers[0].reshape(numbers.shape[1], -1)[...] = np.eye(numbers.shape[1])
    numbers[1].reshape(numbers.shape[1], -1)[...] = 1j * np.eye(numbers.shape[1])
    lucid = np.fft.irfft2(half * _gain(height, width, 1)[:, : width // 2 + 1] * np.sqrt(height * width)) / 4
    spectra = np.repeat(np.eye(height * width).reshape(-1, height, width, 1), 3, axis=-1)
    ours = _before_sigmoid(jax.vmap(lambda spectrum: fourier_image(spectrum, decorrelate=False))(spectra))[..., 0]
    (lucid_columns, lucid_between), (our_columns, our_between) = _spread(lucid), _spread(ours)
    np.testing.assert_allclose(our_between, lucid_between, atol=1e-12)
    np.testing.assert_allclose(our_columns, 2 * lucid_columns, atol=1e-12)


def test_colors_are_mixed_as_those_of_photographs(x64, rng):
    canvas = rng.standard_normal((4, 3, 3))
    table = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    norm = np.sqrt(0.26**2 + 0.27**2 + 0.27**2)
    mixed = np.einsum("hwc,dc->hwd", canvas, table / norm)
    image = pixel_image(canvas)
    np.testing.assert_allclose(image, 1 / (1 + np.exp(-mixed)), atol=1e-14)
    plain = pixel_image(canvas, decorrelate=False)
    np.testing.assert_allclose(plain, 1 / (1 + np.exp(-canvas)), atol=1e-14)


def test_a_spectrum_s_colors_are_mixed_as_pixels_are(x64, rng):
    spectrum = rng.standard_normal((7, 5, 3))
    canvas = _before_sigmoid(fourier_image(spectrum, decorrelate=False))
    np.testing.assert_allclose(fourier_image(spectrum), pixel_image(canvas), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(7, 4)])
def test_gradients_are_finite_differences(x64, rng, size):
    canvas = jnp.asarray(rng.standard_normal((*size, 3)))
    for through in (fourier_image, pixel_image):
        check_grads(through, (canvas,), 1, ["fwd", "rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_decay_is_traced_and_batched(x64, rng):
    spectrum = jnp.asarray(rng.standard_normal((2, 5, 4, 3)))
    decays = jnp.array([0.5, 1.5])
    images = jax.jit(jax.vmap(lambda spectrum, decay: parameterize.fourier_image(spectrum, decay=decay)))(
        spectrum, decays
    )
    for index, decay in enumerate((0.5, 1.5)):
        np.testing.assert_allclose(images[index], fourier_image(spectrum[index], decay=decay), atol=1e-12)


@pytest.mark.slow
def test_images_and_gradients_have_the_same_bits_on_every_call():
    spectrum = parameterize.fourier_start(jax.random.key(1), (96, 75))
    both = jax.jit(jax.value_and_grad(lambda spectrum: jnp.sum(parameterize.fourier_image(spectrum) ** 2)))
    results = {tuple(np.asarray(x).tobytes() for x in both(spectrum)) for _ in range(20)}
    assert len(results) == 1


def test_every_product_asks_for_the_highest_precision():
    # A CPU ignores it; on a GPU or TPU a transform of rounded products would not be its own inverse.
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda x: parameterize.fourier_image(x).sum()))(jnp.zeros((4, 4, 3))))
    products = jaxpr.count("dot_general[")
    assert products >= 6
    assert jaxpr.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.slow
@pytest.mark.parametrize("start", [parameterize.fourier_start, parameterize.pixel_start])
def test_a_start_is_random_and_nearly_gray(start):
    canvas = start(jax.random.key(0), (40, 30))
    assert canvas.shape == (40, 30, 3)
    assert canvas.dtype == jnp.float32
    assert abs(np.std(canvas) - 0.01) < 0.001
    np.testing.assert_array_equal(canvas, start(jax.random.key(0), (40, 30)))
    assert (canvas != start(jax.random.key(1), (40, 30))).all()
    np.testing.assert_allclose(start(jax.random.key(0), (40, 30), scale=3), 300 * canvas, rtol=1e-6)
    for through in (fourier_image, pixel_image):
        image = through(canvas)
        assert image.dtype == jnp.float32
        np.testing.assert_allclose(image, 0.5, atol=0.05)
        assert np.std(image) > 1e-3


@pytest.mark.parametrize("start", [parameterize.fourier_start, parameterize.pixel_start])
@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4, 4, 3), (2.5, 4)])
def test_sizes_are_rows_and_columns(start, size):
    with pytest.raises(InputError, match=r"size=\(.*\): expected rows and columns, whole numbers above 0"):
        start(jax.random.key(0), size)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_scales_are_standard_deviations(scale):
    with pytest.raises(InputError, match=f"scale={scale!r}: expected a standard deviation, 0 or more"):
        parameterize.fourier_start(jax.random.key(0), (4, 4), scale=scale)
