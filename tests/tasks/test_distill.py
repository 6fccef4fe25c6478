import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst.config import DistillConfig
from jnst.tasks import distill
from jnst.tasks.distill import Teacher
from jnst.types import Snapshot

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
BASE = DistillConfig(
    widths="2,3",
    deepest="relu2_1",
    crop=16,
    batch=2,
    steps=40,
    learning_rate=0.02,
    warmup=4,
    average_decay=0.8,
    noise=0.02,
    noise_share=0.5,
    reuse=2,
    pool=3,
    print_every=5,
)
NAMES = ("conv1_1", "conv1_2", "conv2_1")
GRAY = np.full((12, 16, 16, 3), 0.5, np.float32)


def _config(**options):
    return DistillConfig(**{**vars(BASE), **options})


@pytest.fixture(scope="module")
def teachers(tiny):
    return [Teacher(tiny, BASE.layers)]


@pytest.fixture(scope="module")
def photos():
    return [reference.smooth_picture(16, 16, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def source(photos):
    return lambda index: np.stack([photos[index % 4], photos[(index + 1) % 4]])


@pytest.fixture(scope="module")
def begin(teachers, photos):
    return lambda config=BASE, **options: distill.prepare(teachers, photos[:4], config, **options)


@pytest.fixture(scope="module")
def whole(begin, source):
    return distill.run(KEY, begin(), source)


def _compare(params, teachers, fitted, unseen, config=BASE):
    return distill.compare({name: params[name] for name in ("mean", *NAMES)}, teachers, fitted, unseen, config)


def _same(one, other):
    for ours, theirs in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert (one.trace, one.stopped) == (other.trace, other.stopped)


# ---- A training


def test_the_loss_falls_and_the_student_tells_its_teacher_better(begin, teachers, photos):
    """From random numbers: what `prepare` begins with leaves so small a student little to learn."""
    start = reference.random_params((2, 3, 1, 1, 1), seed=3)
    params, average = ({name: jax.tree.map(jnp.array, start[name]) for name in NAMES} for _ in range(2))
    prepared = begin()
    prepared = prepared._replace(state=prepared.state._replace(params=params, average=average))
    result = distill.run(KEY, prepared, lambda index: np.stack(photos[:2]))
    totals = [row["total"] for row in result.trace]
    assert totals[-1] < 0.75 * totals[0]
    assert all(row["total"] == pytest.approx(row["features"] + row["grams"]) for row in result.trace)
    before, after = (_compare(student, teachers, photos[:2], photos[:2])[1] for student in (start, result.params))
    for name in BASE.layers:
        assert after[name][0] > before[name][0], name
    assert np.mean([after[name][0] - before[name][0] for name in BASE.layers]) > 0.15


def test_the_trace_has_the_first_step_each_print_and_the_last(whole):
    assert [row["step"] for row in whole.trace] == [1, 5, 10, 15, 20, 25, 30, 35, 40]
    assert whole.stopped is False


@pytest.mark.parametrize("stop", [1, 6, 39])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(begin, source, whole, stop):
    kept = []

    def callback(record):
        if record.step == stop:
            kept.append(record.snapshot())
        return record.step == stop

    first = distill.run(KEY, begin(), source, callback=callback)
    assert first.stopped is True
    found = Snapshot([leaf.copy() for leaf in kept[0].leaves], list(kept[0].trace))
    _same(distill.run(KEY, begin(snapshot=found), source), whole)


def test_a_callback_changes_nothing_and_at_the_last_step_it_stops_nothing(begin, source, whole):
    records = []

    def callback(record):
        records.append((record.step, record.steps, record.terms["total"]))
        record.snapshot()
        return record.step == record.steps

    _same(distill.run(KEY, begin(), source, callback=callback), whole)
    assert [record[:2] for record in records] == [(step, 40) for step in range(1, 41)]
    assert [records[row["step"] - 1][2] for row in whole.trace] == [row["total"] for row in whole.trace]


def test_each_batch_is_asked_for_once_and_in_its_time(begin, photos):
    asked = []

    def source(index):
        asked.append(index)
        return np.stack(photos[:2])

    distill.run(KEY, begin(), source, callback=lambda record: None)
    assert len(set(asked)) == len(asked)
    assert set(asked) <= set(range(BASE.steps // BASE.reuse))


def test_another_key_is_other_noise(begin, source, whole):
    other = distill.run(jax.random.key(1), begin(), source)
    assert other.trace[-1] != whole.trace[-1]


def test_the_student_begins_as_a_part_of_its_teacher(begin, teachers, photos):
    start = begin()
    assert {name: start.state.params[name]["kernel"].shape for name in NAMES} == {
        "conv1_1": (3, 3, 3, 2),
        "conv1_2": (3, 3, 2, 2),
        "conv2_1": (3, 3, 2, 3),
    }
    scores = _compare({"mean": start.mean, **start.state.params}, teachers, photos[:4], photos[4:])[1]
    assert min(explained for explained, _ in scores.values()) > 0.3  # random numbers do not come there
    assert start.trace == []


@pytest.mark.parametrize(("widths", "name"), [("5,3", "conv1_1"), ("2,6", "conv2_1")])
def test_a_student_wider_than_its_teacher_is_refused(begin, widths, name):
    with pytest.raises(ValueError, match=f"{name}, of a teacher that has"):
        begin(_config(widths=widths))


def test_a_snapshot_of_another_student_is_refused(begin, source):
    kept = []
    distill.run(KEY, begin(), source, callback=lambda record: kept.append(record.snapshot()) or True)
    with pytest.raises(ValueError, match="another network"):
        begin(_config(widths="2,2"), snapshot=kept[0])


DEEP = reference.random_params((6, 3, 1, 1, 1), seed=8)


@pytest.fixture(scope="module")
def two_teachers(tiny):
    first = Teacher({name: tiny[name] for name in ("mean", "conv1_1", "conv1_2")}, BASE.layers[:2])
    return first, Teacher(DEEP, BASE.layers[2:])


def test_two_teachers_split_the_layers(two_teachers, tiny, source):
    """The second one stands for the deeper layers: what it says of the earlier ones plays no part."""
    batch = distill.teach(KEY, two_teachers, jnp.asarray(source(0)), _config(noise_share=0.0))
    expected = {**_maps(tiny, source(0), BASE.layers[:2]), **_maps(DEEP, source(0), BASE.layers[2:])}
    assert {name: maps.shape[-1] for name, maps in batch.features.items()} == dict(
        zip(BASE.layers, (4, 4, 3), strict=True)
    )
    for name, stride in zip(BASE.layers, (4, 4, 2), strict=True):
        np.testing.assert_allclose(batch.features[name], expected[name][:, ::stride, ::stride], atol=1e-4)


@pytest.mark.slow
def test_a_student_learns_from_two_teachers(two_teachers, photos, source):
    config = _config(steps=3)
    result = distill.run(KEY, distill.prepare(two_teachers, photos[:4], config), source)
    assert result.params["conv2_1"]["kernel"].shape == (3, 3, 2, 3)
    assert np.isfinite([row["total"] for row in result.trace]).all()


# ---- What teachers say


def _maps(params, images, layers, pooling="max"):
    """By layer, `[B, h, w, C]` float64."""
    found = [reference.features(params, image, layers, pooling, BASE.padding) for image in images]
    return {name: np.stack([maps[name] for maps in found]) for name in layers}


def test_teachers_say_features_on_the_grid_and_gram_matrices_of_all_places(tiny, teachers, source):
    batch = distill.teach(KEY, tuple(teachers), jnp.asarray(source(0)), _config(noise_share=0.0))
    for name, maps in _maps(tiny, source(0), BASE.layers).items():
        stride = 4 if name < "relu2" else 2
        np.testing.assert_allclose(batch.features[name], maps[:, ::stride, ::stride], rtol=0, atol=1e-4)
        for ours, one in zip(batch.grams[name], maps, strict=True):
            np.testing.assert_allclose(ours, reference.raw_gram(one) / one[..., 0].size, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def said(tiny):
    """What a teacher of one layer says of twelve gray pictures."""
    teachers = (Teacher({name: tiny[name] for name in ("mean", "conv1_1")}, ("relu1_1",)),)
    return lambda key, **options: distill.teach(jax.random.key(key), teachers, GRAY, _config(**options))


def test_no_share_of_noise_leaves_pictures_as_they_are(said):
    np.testing.assert_array_equal(said(0, noise_share=0.0).images, GRAY)


def test_noise_is_of_another_size_in_each_crop_and_stays_displayable(said):
    one, same, other = (said(key, noise_share=1.0, noise=0.9) for key in (0, 0, 1))
    deviations = np.asarray(one.images).std((1, 2, 3))
    assert len(set(deviations)) == len(GRAY)
    assert 0 < deviations.min() < 0.2 < deviations.max() < 0.5  # what is clipped comes to less than 0.5
    assert (float(one.images.min()), float(one.images.max())) == (0, 1)
    # The teachers see what the student will see.
    assert np.ptp(np.asarray(one.features["relu1_1"]), (1, 2)).max() > 0.1
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert not np.array_equal(one.images, other.images)


@pytest.mark.slow
def test_a_share_of_the_crops_gets_noise_and_the_others_none(said):
    moved = [np.ptp(said(key, noise_share=0.5).images, (1, 2, 3)) > 0 for key in range(8)]
    assert 30 < np.sum(moved) < 66  # of 96


# ---- Which batch a step draws


@pytest.mark.parametrize(("reuse", "pool"), [(1, 1), (1, 5), (4, 1), (3, 7)])
def test_a_step_draws_one_of_the_newest_batches_and_never_a_future_one(reuse, pool):
    config = _config(reuse=reuse, pool=pool)
    ages = collections.Counter()
    for step in range(900):
        newest = step // reuse
        drawn = distill._drawn(step, config)
        assert max(0, newest - pool + 1) <= drawn <= newest
        assert distill._drawn(step, config) == drawn
        if newest >= pool:
            ages[newest - drawn] += 1
    assert sorted(ages) == list(range(pool))  # each age comes, about equally often
    assert min(ages.values()) > 0.6 * max(ages.values())


def test_seeds_draw_other_batches():
    drawn = {tuple(distill._drawn(step, _config(seed=seed)) for step in range(50)) for seed in range(5)}
    assert len(drawn) == 5


# ---- The loss


def _running(own, theirs):
    return {
        name: distill._no_moments(width, other) for name, width, other in zip(BASE.layers, own, theirs, strict=True)
    }


def _head(ones, truth):
    """Least squares with the ridge of `heads.fit`: 1e-5 of the mean diagonal."""
    moments = ones.T @ ones / len(ones)
    ridge = 1e-5 * np.trace(moments) / len(moments) * np.eye(len(moments))
    return np.linalg.solve(moments + ridge, ones.T @ truth / len(ones))


def _loss(params, running, batch, config):
    return jax.jit(distill.student_loss, static_argnames="config")(params, running, batch, config=config)


@pytest.mark.slow
def test_a_student_equal_to_its_teacher_does_nothing_wrong(tiny, teachers, source):
    config = _config(pooling="max", noise_share=0.0)
    batch = distill.teach(KEY, tuple(teachers), jnp.asarray(source(0)), config)
    running = _running((4, 4, 5), (4, 4, 5))
    total, (terms, _) = _loss(tiny, running, batch, config)
    assert abs(float(total)) < 1e-3
    stranger = reference.random_params((4, 5, 1, 1, 1), seed=3)
    assert float(_loss(stranger, running, batch, config)[0]) > 0.03
    assert float(terms["total"]) == float(total)


def test_the_loss_by_hand(tiny, teachers, source):
    """The first step's: heads from this batch alone, differences over variance, Gram matrices over the teacher's."""
    config = _config(noise_share=0.0, gram_weight=3.0)
    student = reference.random_params((2, 3, 1, 1, 1), seed=3)
    batch = distill.teach(KEY, tuple(teachers), jnp.asarray(source(0)), config)
    total, (terms, running) = _loss(student, _running((2, 2, 3), (4, 4, 5)), batch, config)
    own, goal = _maps(student, source(0), BASE.layers, "avg"), _maps(tiny, source(0), BASE.layers)
    features, grams = [], []
    for name in BASE.layers:
        stride = 4 if name < "relu2" else 2
        flat, truth = (maps[name][:, ::stride, ::stride].reshape(-1, maps[name].shape[-1]) for maps in (own, goal))
        ones = np.c_[flat, np.ones(len(flat))]
        head = _head(ones, truth)
        spread = truth.var(0)
        features.append(np.mean(np.mean((ones @ head - truth) ** 2, 0) / (spread + 0.01 * spread.mean())))
        off = []
        for mine, theirs in zip(own[name], goal[name], strict=True):
            guess = reference.raw_gram(mine @ head[:-1] + head[-1]) / mine[..., 0].size
            fixed = reference.raw_gram(theirs) / theirs[..., 0].size
            off.append(np.sum((guess - fixed) ** 2) / np.sum(fixed**2))
        grams.append(np.mean(off))
        np.testing.assert_allclose(running[name].own, 0.1 * ones.T @ ones / len(ones), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(terms["features"], np.mean(features), rtol=0.01)
    np.testing.assert_allclose(terms["grams"], np.mean(grams), rtol=0.01)
    np.testing.assert_allclose(total, np.mean(features) + 3 * np.mean(grams), rtol=0.01)


@pytest.mark.slow
def test_a_batch_of_pictures_without_contrast_is_no_trouble(tiny, teachers):
    """The sky, or a white page: a channel is the same everywhere, and a constant guesses it."""
    config = _config(noise_share=0.0)
    batch = distill.teach(KEY, tuple(teachers), jnp.ones((2, 16, 16, 3)), config)
    student = reference.random_params((2, 3, 1, 1, 1), seed=3)
    running = _running((2, 2, 3), (4, 4, 5))
    take = jax.jit(jax.value_and_grad(distill.student_loss, has_aux=True), static_argnames="config")
    params = {name: jax.tree.map(jnp.asarray, student[name]) for name in ("mean", *NAMES)}
    (total, _), gradient = take(params, running, batch, config=config)
    assert abs(float(total)) < 0.1
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() < 10 for leaf in jax.tree.leaves(gradient))


# ---- Scores


def test_compare_by_hand(tiny, teachers, photos):
    student = reference.random_params((2, 3, 1, 1, 1), seed=3)
    fits, scores = _compare(student, teachers, photos[:4], photos[4:])
    own, goal = _maps(student, photos, BASE.layers, "avg"), _maps(tiny, photos, BASE.layers)
    for name in BASE.layers:
        ones = np.concatenate([own[name], np.ones((*own[name].shape[:3], 1))], -1)
        head = _head(ones[:4].reshape(-1, ones.shape[-1]), goal[name][:4].reshape(-1, goal[name].shape[-1]))
        guess = ones[4:] @ head
        np.testing.assert_allclose(ones[4:] @ np.asarray(fits[name]), guess, rtol=0, atol=2e-3 * np.abs(guess).max())
        explained, cosines = [], []
        for mine, theirs in zip(guess, goal[name][4:], strict=True):
            spread = np.sum((theirs - theirs.mean((0, 1))) ** 2)
            explained.append(1 - np.sum((mine - theirs) ** 2) / spread)
            one, other = reference.raw_gram(mine), reference.raw_gram(theirs)
            cosines.append(np.sum(one * other) / np.sqrt(np.sum(one**2) * np.sum(other**2)))
        np.testing.assert_allclose(scores[name], (np.mean(explained), np.mean(cosines)), rtol=0, atol=2e-3)


@pytest.mark.slow
def test_one_picture_without_contrast_does_not_spoil_the_scores(tiny, teachers, photos):
    white = np.ones((16, 16, 3), np.float32)
    config = _config(pooling="max")  # the student is the teacher
    _, scores = _compare(tiny, teachers, photos[:4], [photos[4], white], config)
    for explained, cosine in scores.values():
        assert 0.9 < explained <= 1.001
        assert 0.9 < cosine <= 1.001
