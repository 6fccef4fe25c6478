"""An objective over noise: computed at once, which is what tiles must come to, and in tiles."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import compiler, objective, tiles
from jnst.config import ObjectiveSpec
from jnst.types import Params, StyleTarget, Terms, Weights

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
SHALLOW = ObjectiveSpec(content_layers=("relu2_2",), style_layers=STYLE_LAYERS[:3], pooling="avg")


class Problem(NamedTuple):
    params: Params
    content: jax.Array
    style: jax.Array
    image: jax.Array
    weights: Weights
    spec: ObjectiveSpec


class Solution(NamedTuple):
    styles: dict[str, StyleTarget]
    terms: Terms
    gradient: jax.Array


def make(shape, spec, widths=(4, 5, 6, 7, 8)):
    """Of noise, where no two features are so alike that rounding decides on a maximum. In float64 where that is on, of
    numbers that float32 has too."""
    rng = np.random.default_rng(0)
    content, image = rng.random((2, *shape, 3))
    style = rng.random((53, 38, 3)) ** 3  # not the image's distribution: a loss is no difference of nearly equal sums
    layers = [np.linspace(0.5, 1.5, len(layers)) for layers in (spec.content_layers, spec.style_layers)]
    arrays = reference.random_params(widths, seed=0), content, style, image, Weights(*np.ones(3), *layers)
    return balanced(Problem(*jax.tree.map(lambda leaf: jnp.asarray(np.float32(leaf), float), arrays), spec))


def balanced(problem):
    """The same with weights under which each term that there is pulls at the image alike, so that none hides behind
    another."""
    zeros = dict.fromkeys(("content", "style", "tv"), jnp.zeros_like(problem.weights.tv))
    alone = lambda name: problem.weights._replace(**zeros | {name: zeros[name] + 1})  # noqa: E731
    there = [name for name in zeros if name != "content" or problem.spec.content_layers]
    pulls = {name: whole(problem._replace(weights=alone(name))).gradient for name in there}
    return problem._replace(
        weights=problem.weights._replace(**{name: 1 / jnp.linalg.norm(pull) for name, pull in pulls.items()})
    )


def _options(shape):
    """Of the compiler, so that compiling and running together take least."""
    return {"xla_backend_optimization_level": 1 if shape[0] * shape[1] > 45_000 else 0}


def whole(problem):
    """Without tiles."""
    return Solution(*_whole_of(problem)(*problem[:-1], spec=problem.spec))


def memory_of_whole(problem):
    """Bytes that lie between arguments and results."""
    lowered = _whole_of(problem).lower(*problem[:-1], spec=problem.spec)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def _whole_of(problem):
    return _compiled_quickly(tuple(_options(problem.image.shape).items()))


@functools.cache
def _compiled_quickly(options):
    def run(params, content, style, image, weights, spec):
        targets = objective.style_targets(params, content, [style], jnp.ones(1), spec)
        function = jax.value_and_grad(objective.style_objective, argnums=1, has_aux=True)
        (_, terms), gradient = function(params, image, targets, weights, spec)
        return targets.style, terms, gradient

    return jax.jit(run, static_argnames="spec", compiler_options=dict(options))


def passes(problem, tile, *, mesh=None, halo=None):
    """The programs for tiles, compiled quickly too."""
    shape = problem.image.shape[:2]
    tiling = tiles.make_tiling(shape, objective.layers_of(problem.spec), tile, halo=halo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compiler.OPTIONS, "cpu", _options(shape))
        return tiles.compile_passes(
            problem.params, tiling, problem.spec, problem.weights, mesh=mesh or tiles.make_mesh(jax.devices()[:1])
        )


def in_tiles(programs, problem, styles, *, tick=None):
    """Terms and gradient."""
    problem = problem._replace(spec=None)
    problem, styles = jax.device_put((problem, styles), tiles.everywhere(programs.mesh))
    content = tiles.content_of(programs, problem.params, problem.content)
    total, terms, gradient = tiles.evaluate(
        programs, problem.params, problem.image, content, styles, problem.weights, tick=tick
    )
    assert total == terms["total"]
    return Solution(styles, terms, gradient)


def distance(ours, expected):
    """The largest difference, over the largest number, if that is not 0: one wrong pixel shows."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / (np.abs(expected).max() or 1)


def assert_equal(ours, expected, error):
    assert set(ours.terms) == set(expected.terms) == {"total", "content", "style", "tv"}
    for name, value in expected.terms.items():
        assert distance(ours.terms[name], value) < error, name
    assert distance(ours.gradient, expected.gradient) < error
