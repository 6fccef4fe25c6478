"""A small VGG-19 taught by a large one: knowledge distillation for style transfer, compiled.

The student has VGG-19's layers with fewer channels. At each layer a head, a 1x1 convolution, guesses the teacher's
feature map from the student's, and what is wrong with the guess is the loss: squared differences of features, each
channel over its own variance, so that neither loud layers nor loud channels drown the others, and squared differences
of Gram matrices over the teacher's own, which is what a style loss sees.

Wang et al. 2020 (Collaborative Distillation) train heads by gradients beside the student. Departures:

- Heads are solved, not trained: each step takes the least squares solution over the running moments of the last
  batches. It is the best head for the student as it is, and at the best head the gradient does not depend on how the
  head would move (Golub & Pereyra 1973, variable projection).
- The student does not start from random numbers but as a part of its teacher (`prune`).
- A teacher costs more than its student, so what it says of a batch is kept: step t draws one of the `pool` newest
  batches, of which a new one comes in each `reuse` steps. What is drawn depends on seed and step alone.
- Some crops get noise: a picture that is being optimized is no photo, and a student that never saw grain ignores it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst import heads, train
from jnst.config import DistillConfig, TrainConfig
from jnst.nets import vgg
from jnst.prune import prune
from jnst.types import Features, Params, Rates, Snapshot

__all__ = [
    "Batch",
    "Prepared",
    "Record",
    "Result",
    "Teacher",
    "compare",
    "prepare",
    "run",
    "student_loss",
    "teach",
]

_QUIET = 0.01  # of the mean variance, added to each: a channel that is almost always 0 must not count the most
_FLAT = 1e-5  # of the mean square: a variance below it is no contrast
_LEAST = 1e-12  # of what is divided by
_MEMORY = 0.9  # of the running moments: heads are fitted to about ten batches
_GRID = 3  # the block on whose grid features are compared: of earlier ones each second or fourth pixel
_TERMS = ("total", "features", "grams")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network, traced, and which of its layers are taught, static."""

    params: Params
    layers: tuple[str, ...] = dataclasses.field(metadata={"static": True})


class Batch(NamedTuple):
    """Pictures and what the teachers say of them."""

    images: jax.Array  # [B, S, S, 3]
    features: Features  # by layer, [B, h, w, C] on the grid
    grams: Mapping[str, jax.Array]  # by layer, [B, C, C]


class Record(NamedTuple):
    """What a callback sees after a step."""

    step: int
    """Updates made."""
    steps: int
    """Updates that were asked for."""
    terms: dict[str, float]
    """`total`, `features` and `grams`, the means over layers."""
    snapshot: Callable[[], Snapshot]
    """Fetches all that `prepare` needs to go on from here; only while the callback runs."""


class Prepared(NamedTuple):
    """A training before its next step. `run` donates `state`: it serves once."""

    state: train.TrainState
    teachers: tuple[Teacher, ...]
    mean: jax.Array
    config: DistillConfig
    trace: list[dict[str, float]]


class Result(NamedTuple):
    """What a training leaves."""

    params: Params
    """The student: the average over its last iterates."""
    trace: list[dict[str, float]]
    """Rows of step, total, features and grams."""
    stopped: bool
    """Whether the callback ended it before its last step."""


def prepare(
    teachers: Sequence[Teacher],
    images: Sequence[np.ndarray],
    config: DistillConfig,
    *,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """A training before its first step, the student a part of its teachers; or as it stood at a snapshot.

    Args:
        teachers: What is taught by whom, from `relu1_1` down, no layer twice.
        images: Each `[S, S, 3]`; what the teachers say of them decides which channels are kept, and the kernels.
        config: Paths in it are not looked at.
        snapshot: Where to go on; `images` are not looked at then.

    Raises:
        ValueError: more channels asked for than a teacher has, or a snapshot of another training.
    """
    teachers = tuple(Teacher(_needed(each), each.layers) for each in teachers)
    mean = teachers[0].params["mean"]
    theirs = {"conv" + layer[4:]: _width(each, layer) for each in teachers for layer in each.layers}
    widths = {name: config.block_widths[int(name[4]) - 1] for name in theirs}
    for name, width in widths.items():
        if width > theirs[name]:
            raise ValueError(f"{width} channels in {name}, of a teacher that has {theirs[name]}")
    if snapshot is None:
        params = _pruned(teachers, images, widths, mean, config)
    else:
        params = _no_params(widths)
    running = {"relu" + name[4:]: _no_moments(widths[name], theirs[name]) for name in widths}
    state = train.init(params, running, _rates(config), _training(config))
    if snapshot is None:
        return Prepared(state, teachers, mean, config, [])
    return Prepared(train.restore(state, snapshot.leaves), teachers, mean, config, list(snapshot.trace))


def _width(teacher, layer):
    return teacher.params["conv" + layer[4:]]["kernel"].shape[-1]


def _pruned(teachers, images, widths, mean, config):
    wide = {name: [] for name in widths}
    for image in images:
        for name, maps in _before_rectifiers(teachers, jnp.asarray(image), config).items():
            wide[name].append(np.asarray(maps))
    params = prune(images, wide, widths, np.asarray(mean), pooling=config.pooling, padding=config.padding)
    return {name: params[name] for name in widths}


def _no_params(widths):
    inputs = [3, *widths.values()]
    return {
        name: {"kernel": jnp.zeros((3, 3, before, width)), "bias": jnp.zeros(width)}
        for before, (name, width) in zip(inputs, widths.items(), strict=False)
    }


def _needed(teacher):
    names = ("mean", *vgg.convolutions(teacher.layers))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), {name: teacher.params[name] for name in names})


@functools.partial(jax.jit, static_argnames=("config",))
def _before_rectifiers(teachers, image, config):
    found = {}
    for each in teachers:
        found |= _look(each, image, config, tuple("conv" + layer[4:] for layer in each.layers))
    return found


def _look(teacher, image, config, layers=None):
    layers = layers or teacher.layers
    return vgg.features(teacher.params, image, layers, pooling=config.teacher_pooling, padding=config.padding)


def _no_moments(own, theirs):
    return heads.Moments(jnp.zeros((own + 1, own + 1)), jnp.zeros((own + 1, theirs)), jnp.zeros(theirs))


def run(
    key: jax.Array,
    prepared: Prepared,
    source: Callable[[int], np.ndarray],
    *,
    callback: Callable[[Record], bool | None] | None = None,
) -> Result:
    """Drives a training to its last step, or to where the callback stops it.

    Args:
        key: Of the noise on crops.
        prepared: From `prepare`.
        source: The number of a batch -> `[B, S, S, 3]`, always the same.
        callback: Called after each step; a true answer ends the training.
    """
    config, state, trace = prepared.config, prepared.state, list(prepared.trace)
    pool: dict[int, Batch] = {}
    done, stopped = int(state.step), False
    while done < config.steps and not stopped:
        index = _drawn(done, config)
        if index not in pool:
            oldest = done // config.reuse - config.pool
            pool = {number: batch for number, batch in pool.items() if number > oldest}
            pool[index] = teach(jax.random.fold_in(key, index), prepared.teachers, jnp.asarray(source(index)), config)
        state, terms = _advance(key, state, prepared.mean, pool[index], config=config)
        done = int(state.step)
        terms = {name: float(terms[name]) for name in _TERMS}
        if done in (1, config.steps) or (config.print_every > 0 and done % config.print_every == 0):
            trace.append({"step": done, **terms})
        snapshot = lambda state=state: Snapshot(train.leaves(state), list(trace))  # noqa: E731
        stopped = callback is not None and bool(callback(Record(done, config.steps, terms, snapshot)))
    return Result({"mean": prepared.mean, **train.averaged(state)}, trace, stopped and done < config.steps)


def _drawn(step, config):
    """The batch of a step: one of the `pool` newest, of which a new one comes each `reuse` steps."""
    newest = step // config.reuse
    age = np.random.default_rng([config.seed, 2, step]).integers(min(newest + 1, config.pool))
    return newest - int(age)


@functools.partial(jax.jit, static_argnames=("config",))
def teach(key: jax.Array, teachers: Sequence[Teacher], images: jax.Array, config: DistillConfig) -> Batch:
    """What teachers say of pictures `[B, S, S, 3]`, to a share of which noise is added first."""
    keys = jax.random.split(key, 3)
    each = (len(images), 1, 1, 1)
    chosen = jax.random.bernoulli(keys[0], config.noise_share, each)
    deviation = chosen * config.noise * jax.random.uniform(keys[1], each)
    images = jnp.clip(images + deviation * jax.random.normal(keys[2], images.shape), 0, 1)
    found = {}
    for teacher in teachers:
        found |= jax.vmap(functools.partial(_look, teacher, config=config))(images)
    features = {name: _on_grid(name, maps) for name, maps in found.items()}
    return Batch(images, features, {name: heads.grams(maps) for name, maps in found.items()})


def _on_grid(layer, maps):
    stride = 2 ** max(0, _GRID - int(layer[4]))
    return maps[:, ::stride, ::stride]


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("state",))
def _advance(key, state, mean, batch, *, config):
    def loss(_, params, running, batch):
        return student_loss({"mean": mean, **params}, running, batch, config)

    return train.step(key, state, loss, batch, _rates(config), _training(config))


def _rates(config):
    return Rates(learning_rate=jnp.float32(config.learning_rate))


def _training(config):
    return TrainConfig(steps=config.steps, schedule="cosine", warmup=config.warmup, average_decay=config.average_decay)


def student_loss(
    params: Params, running: Mapping[str, heads.Moments], batch: Batch, config: DistillConfig
) -> tuple[jax.Array, tuple[Mapping[str, jax.Array], Mapping[str, heads.Moments]]]:
    """What is wrong with a student's guesses, the mean over layers.

    Args:
        params: The student's.
        running: By layer, the moments over the batches before, weighted; zeros at the start.
        batch: From `teach`.
        config: Static choices.

    Returns:
        The loss, and its terms and the running moments with this batch in them.
    """
    layers = tuple(batch.features)
    look = functools.partial(vgg.features, layers=layers, pooling=config.pooling, padding=config.padding)
    own = jax.vmap(look, (None, 0))(params, batch.images)
    features, grams, after = [], [], {}
    for name in layers:
        here = heads.moments(_on_grid(name, own[name]), batch.features[name])
        after[name] = jax.tree.map(
            lambda old, new: _MEMORY * old + (1 - _MEMORY) * lax.stop_gradient(new), running[name], here
        )
        head = heads.fit(after[name])
        # The last entry is the weighted mean of 1: below 1 as long as the zeros of the start weigh in.
        mean = jax.tree.map(lambda leaf, one=after[name].own[-1, -1]: leaf / one, after[name])
        spread = heads.variance(mean)
        # Pictures without any contrast leave rounding errors, over which nothing must be divided.
        spread = jnp.maximum(spread + _QUIET * jnp.mean(spread), _FLAT * jnp.mean(mean.teacher) + _LEAST)
        features.append(jnp.mean(heads.residual(here, head) / spread))
        wrong = (heads.guessed_grams(own[name], head) - batch.grams[name]) ** 2
        grams.append(jnp.mean(jnp.sum(wrong, (1, 2)) / jnp.maximum(jnp.sum(batch.grams[name] ** 2, (1, 2)), _LEAST)))
    feature, gram = (sum(values) / len(layers) for values in (features, grams))
    total = feature + config.gram_weight * gram
    return total, ({"total": total, "features": feature, "grams": gram}, after)


def compare(
    params: Params,
    teachers: Sequence[Teacher],
    fitted: Sequence[np.ndarray],
    unseen: Sequence[np.ndarray],
    config: DistillConfig,
) -> tuple[dict[str, jax.Array], dict[str, tuple[float, float]]]:
    """Heads fitted on some pictures, and how well the student tells its teachers with them on others.

    Args:
        params: The student's.
        teachers: As in `prepare`.
        fitted: Pictures `[S, S, 3]` for the heads, of one size.
        unseen: Pictures `[S, S, 3]` for the scores, of one size.
        config: Static choices.

    Returns:
        By layer, the head `[c + 1, C]`; and by layer the means over `unseen` of R^2 and of the cosine between Gram
        matrices, as `heads.score` has them.
    """
    teachers = tuple(Teacher(_needed(each), each.layers) for each in teachers)
    total: dict[str, heads.Moments] = {}
    for image in fitted:
        for name, found in _moments(params, teachers, jnp.asarray(image), config).items():
            total[name] = jax.tree.map(jnp.add, total[name], found) if name in total else found
    fits = {name: heads.fit(found) for name, found in total.items()}
    found = [jax.device_get(_score(params, teachers, jnp.asarray(image), fits, config)) for image in unseen]
    scores = {}
    for name in fits:
        explained, cosines = np.array([score[name] for score in found], np.float64).T
        explained = explained[np.isfinite(explained)]  # of a picture without contrast there is nothing to explain
        scores[name] = float(explained.mean()) if len(explained) else 0.0, float(cosines.mean())
    return fits, scores


@functools.partial(jax.jit, static_argnames=("config",))
def _moments(params, teachers, image, config):
    own, theirs = _both(params, teachers, image, config)
    return {name: heads.moments(own[name], theirs[name]) for name in own}


@functools.partial(jax.jit, static_argnames=("config",))
def _score(params, teachers, image, fits, config):
    return heads.score(*_both(params, teachers, image, config), fits)


def _both(params, teachers, image, config):
    theirs = {}
    for each in teachers:
        theirs |= _look(each, image, config)
    own = vgg.features(params, image, tuple(theirs), pooling=config.pooling, padding=config.padding)
    return own, theirs
