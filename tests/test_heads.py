import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import heads

LAYERS = ("relu1_1", "relu1_2", "relu2_1")


def _maps(rng, shape=(3, 6, 5), own=4, theirs=7):
    """A student's maps `[..., c]` and a teacher's `[..., C]`, half of which the student tells."""
    student = np.maximum(rng.standard_normal((*shape, own)), 0)
    teacher = student @ rng.standard_normal((own, theirs)) + 2 + 0.5 * rng.standard_normal((*shape, theirs))
    return student, teacher


def _explicit(student, head):
    """The guess itself, `[..., C]`."""
    return student @ head[:-1] + head[-1]


@pytest.mark.slow
def test_moments_are_means_over_places(x64, rng):
    student, teacher = _maps(rng)
    found = heads.moments(jnp.asarray(student), jnp.asarray(teacher))
    flat, goal = np.c_[student.reshape(-1, 4), np.ones(90)], teacher.reshape(-1, 7)
    np.testing.assert_allclose(found.own, flat.T @ flat / 90, rtol=1e-12)
    np.testing.assert_allclose(found.cross, flat.T @ goal / 90, rtol=1e-12)
    np.testing.assert_allclose(found.teacher, np.mean(goal**2, 0), rtol=1e-12)
    np.testing.assert_allclose(heads.variance(found), goal.var(0), rtol=1e-10)


@pytest.mark.slow
def test_the_head_is_the_least_squares_solution(x64, rng):
    student, teacher = _maps(rng)
    found = heads.fit(heads.moments(jnp.asarray(student), jnp.asarray(teacher)))
    flat = np.c_[student.reshape(-1, 4), np.ones(90)]
    expected = np.linalg.lstsq(flat, teacher.reshape(-1, 7), rcond=None)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)  # a ridge of 1e-5 stands between them


@pytest.mark.slow
def test_float32_and_nearly_dependent_channels_fit_as_well(rng):
    student, teacher = _maps(rng)
    student = np.concatenate([student, student[..., :2] * (1 + 1e-6), 0 * student[..., :1]], -1)
    both = heads.moments(*(jnp.asarray(maps, jnp.float32) for maps in (student, teacher)))
    flat = np.c_[student.reshape(-1, 7), np.ones(90)]
    solution = np.linalg.lstsq(flat, teacher.reshape(-1, 7), rcond=None)[0]
    least = np.mean((flat @ solution - teacher.reshape(-1, 7)) ** 2, 0)
    np.testing.assert_allclose(heads.residual(both, heads.fit(both)), least, rtol=1e-3)


def test_a_multiple_of_the_moments_gives_the_same_head(x64, rng):
    both = heads.moments(*map(jnp.asarray, _maps(rng)))
    scaled = jax.tree.map(lambda leaf: 1e-3 * leaf, both)
    np.testing.assert_allclose(heads.fit(scaled), heads.fit(both), rtol=1e-9)


def test_the_residual_is_the_mean_squared_error_of_the_guess(x64, rng):
    student, teacher = _maps(rng)
    head = rng.standard_normal((5, 7))  # any, not the best one
    found = heads.residual(heads.moments(jnp.asarray(student), jnp.asarray(teacher)), jnp.asarray(head))
    np.testing.assert_allclose(found, np.mean((_explicit(student, head) - teacher) ** 2, (0, 1, 2)), rtol=1e-10)


@pytest.mark.slow
def test_guessed_gram_matrices_are_those_of_the_guess(x64, rng):
    student, _ = _maps(rng)
    head = rng.standard_normal((5, 7))
    found = heads.guessed_grams(jnp.asarray(student), jnp.asarray(head))
    for ours, maps in zip(found, _explicit(student, head), strict=True):
        np.testing.assert_allclose(ours, reference.raw_gram(maps) / 30, rtol=1e-10)


# ---- Scores


def _features(params, picture, pooling="max"):
    maps = reference.features(params, picture, LAYERS, pooling, "zeros")
    return {name: jnp.asarray(found) for name, found in maps.items()}


def _fits(student, teacher):
    return {name: heads.fit(heads.moments(student[name], teacher[name])) for name in LAYERS}


@pytest.mark.slow
def test_a_network_tells_itself(x64, tiny, pictures):
    maps = _features(tiny, pictures[0])
    for explained, cosine in heads.score(maps, maps, _fits(maps, maps)).values():
        np.testing.assert_allclose((explained, cosine), 1, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_an_unrelated_network_tells_clearly_less(x64, tiny, pictures, rng):
    teacher = _features(tiny, pictures[0])
    noise = {name: jnp.asarray(np.maximum(rng.standard_normal(maps.shape), 0)) for name, maps in teacher.items()}
    for name, (explained, cosine) in heads.score(noise, teacher, _fits(noise, teacher)).items():
        assert explained < 0.3, name
        assert cosine < 0.999, name


@pytest.mark.slow
def test_the_score_is_that_of_the_guess_itself(x64, tiny, pictures, rng):
    teacher = _features(tiny, pictures[0])
    student = {name: jnp.asarray(rng.random((*maps.shape[:2], 3))) for name, maps in teacher.items()}
    given = {name: jnp.asarray(rng.standard_normal((4, maps.shape[-1]))) for name, maps in teacher.items()}
    for name, (explained, cosine) in heads.score(student, teacher, given).items():
        truth, guess = np.asarray(teacher[name]), _explicit(np.asarray(student[name]), np.asarray(given[name]))
        expected = 1 - np.sum((guess - truth) ** 2) / np.sum((truth - truth.mean((0, 1))) ** 2)
        np.testing.assert_allclose(explained, expected, rtol=1e-8)
        one, other = reference.raw_gram(guess), reference.raw_gram(truth)
        np.testing.assert_allclose(cosine, np.sum(one * other) / np.sqrt(np.sum(one**2) * np.sum(other**2)), rtol=1e-10)


# ---- Balance


@pytest.fixture
def student():
    params = reference.random_params((3, 4, 1, 1, 1), seed=5)
    kept = {name: params[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), kept)


@pytest.fixture
def random_heads(rng):
    shapes = {"relu1_1": (4, 6), "relu1_2": (4, 6), "relu2_1": (5, 8)}
    return {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["max", "avg", "l2"])
@pytest.mark.parametrize("missing", ["", "relu1_2"])
def test_balance_scales_each_channel_to_its_heads_row(x64, student, random_heads, pictures, pooling, missing):
    random_heads.pop(missing, None)
    random_heads["relu1_1"] = random_heads["relu1_1"].at[1].set(0)  # a channel that tells nothing stays as it is
    picture = pictures[0]
    before = _features(student, picture, pooling=pooling)
    after = _features(heads.balance(student, random_heads), picture, pooling=pooling)
    for name in LAYERS:
        scale = np.ones(before[name].shape[-1])
        if name in random_heads:
            scale = np.sqrt(np.sum(np.asarray(random_heads[name])[:-1] ** 2, 1))
        scale[scale == 0] = 1
        np.testing.assert_allclose(after[name], np.asarray(before[name]) * scale, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_heads_refitted_after_balance_have_rows_of_length_1_and_balance_again_changes_nothing(x64, student, tiny, rng):
    picture = rng.random((16, 16, 3))  # noise: no channel is so quiet that the ridge alone decides on its row
    teacher = _features(tiny, picture)
    once = heads.balance(student, _fits(_features(student, picture), teacher))
    refitted = _fits(_features(once, picture), teacher)
    for name, head in refitted.items():
        np.testing.assert_allclose(np.linalg.norm(head[:-1], axis=1), 1, rtol=1e-2, err_msg=name)
    twice = heads.balance(once, refitted)
    for one, other in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(other, one, rtol=0.02, atol=1e-9)
