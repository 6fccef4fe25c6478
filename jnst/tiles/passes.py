"""Two passes over the tiles of an image.

The objective sees an image through sums over the pixels of its feature maps (`objective.sums_of`), and a sum can be
taken tile by tile. The first pass adds the sums up; from the whole image's sums follow the loss and its slope by each
of them; the second pass computes the features of each tile once more, and with those slopes the tile's share of the
gradient. That is the whole image's gradient, not one of every tile by itself: nothing shows where tiles meet. Memory
grows with a tile; of the whole image there are its pixels, their gradient and the content's features.

What a tile adds to the gradient lies in its window, and windows are added up where they overlap, so that one halo
serves both passes. Whoever takes from each window the gradient of its tile alone needs twice the halo in the second.

Over a mesh each device takes a tile at a time. Between the passes the sums are added up over the devices, and after
the second the shares of the gradient; no feature map leaves its device.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnst import compiler, losses, objective
from jnst.config import ObjectiveSpec, halvings_of
from jnst.nets import vgg
from jnst.tiles.tiling import Tiling
from jnst.types import Features, Image, Params, Statistic, StyleTarget, Sums, Terms, Weights

__all__ = [
    "Content",
    "Passes",
    "compile_passes",
    "content_of",
    "evaluate",
    "everywhere",
    "make_mesh",
    "spread",
    "style_statistics",
]

_AXIS = "tile"
_EACH, _ALL = PartitionSpec(_AXIS), PartitionSpec()


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """The devices in a row."""
    return Mesh(np.array(devices), (_AXIS,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Whole on each device: the image, the network, the targets of styles."""
    return NamedSharding(mesh, _ALL)


def spread(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """How arrays `[..., H, W, 3]` that need not be whole lie on the devices: in parts of rows, or of columns, where
    the devices divide them evenly; else whole, as are all others."""
    for axis in (-3, -2):
        if len(shape) >= 3 and shape[axis] % mesh.size == 0:
            return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) + axis), _AXIS))
    return everywhere(mesh)


class Content(NamedTuple):
    """The content's side of the objective, in tiles."""

    targets: tuple[Features, ...]
    """Of each call of a program, by layer: `[devices, h, w, c]`, of the tiles alone."""
    powers: Mapping[str, jax.Array]
    """From `objective.content_powers`, of the whole picture."""


class Passes(NamedTuple):
    """Compiled programs over one tiling. Each call of one does a tile on each device."""

    tiling: Tiling
    mesh: Mesh
    places: tuple[jax.Array, ...]
    """Of each call, int32 `[devices, 2, 3]` (see `Tiling.places`)."""
    target: Callable[..., tuple[Features, Mapping[str, jax.Array]]]
    first: Callable[..., Sums]
    middle: Callable[..., tuple[Terms, Sums]]
    second: Callable[..., jax.Array]
    last: Callable[..., tuple[jax.Array, Terms, Image]]
    zeros: Callable[[], tuple[Sums, jax.Array]]
    bytes: int
    """What a device needs for loss and gradient, with image, network and `Content`; 0 where that is not known."""


def compile_passes(params: Params, tiling: Tiling, spec: ObjectiveSpec, weights: Weights, *, mesh: Mesh) -> Passes:
    """Compiles the programs; nothing is computed.

    Args:
        params: Backbone, or its shapes (`jax.eval_shape`).
        tiling: Of the image.
        spec: Static half of the objective.
        weights: Of the terms, or their shapes.
        mesh: From `make_mesh`.

    Raises:
        ValueError: the padding is `wrap`, and there is more than one tile: the network's border, where opposite edges
            meet, belongs to no window.
    """
    place = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    image = jax.ShapeDtypeStruct((*tiling.shape, 3), weights.content.dtype)
    parts = _parts(tiling, spec)
    found, powers = jax.eval_shape(parts.target, params, image, place)
    sums = jax.eval_shape(parts.sums, params, image, place, found)
    shapes = _map_shapes(params, image, spec)
    ready = lambda sums: objective.blend([_divided(sums.style, shapes, spec)], jnp.ones(1))  # noqa: E731
    styles = jax.eval_shape(ready, sums)
    middle = functools.partial(_middle, shapes=shapes, spec=spec)
    terms, _ = jax.eval_shape(middle, _shaped(sums, lead=(1,)), powers, styles, weights)
    each = functools.partial(_shaped, sharding=NamedSharding(mesh, _EACH), lead=(mesh.size,))
    whole = functools.partial(_shaped, sharding=everywhere(mesh))
    build = functools.partial(_spread, mesh=mesh)
    one, all_ = whole((params, image)), everywhere(mesh)
    lowered = {
        "target": build(parts.target, 2).lower(*one, each(place)),
        "first": build(parts.first, 2, donated=4).lower(*one, each(place), each(found), each(sums)),
        "middle": jax.jit(middle, out_shardings=all_).lower(each(sums), *whole((powers, styles, weights))),
        "second": build(parts.second, 3, donated=5).lower(*one, whole(sums), each(place), each(found), each(image)),
        "last": jax.jit(
            functools.partial(_last, spec=spec),
            donate_argnums=1 if mesh.size == 1 else (),  # a whole gradient can become the sum, but not a part of it
            out_shardings=(all_, all_, spread(mesh, image.shape)),
        ).lower(one[1], each(image), whole(terms), whole(weights)),
    }
    programs = {name: compiler.compiled(one) for name, one in lowered.items()}
    calls = -(-tiling.total // mesh.size)
    stored = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found)) * (calls - 1)
    # Of no content nothing is computed, in no memory at all.
    needed = [compiler.bytes_of(program) for name, program in programs.items() if found or name != "target"]
    empty = (each(sums), each(image))
    zeros = lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)  # noqa: E731
    return Passes(
        tiling=tiling,
        mesh=mesh,
        places=_places(tiling, mesh),
        zeros=jax.jit(zeros, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, empty)),
        bytes=max(needed) + stored if all(needed) else 0,
        **programs,
    )


def content_of(passes: Passes, params: Params, image: Image) -> Content:
    """What the content image's features are; computed once."""
    found = [passes.target(params, image, places) for places in passes.places]
    add = jax.jit(lambda *parts: sum(part.sum(0) for part in parts), out_shardings=everywhere(passes.mesh))
    return Content(tuple(each for each, _ in found), jax.tree.map(add, *(powers for _, powers in found)))


def evaluate(
    passes: Passes,
    params: Params,
    image: Image,
    content: Content,
    styles: Mapping[str, StyleTarget],
    weights: Weights,
    *,
    tick: Callable[[float], None] | None = None,
) -> tuple[jax.Array, Terms, Image]:
    """`objective.style_objective`, and its gradient by the image.

    Args:
        passes: Compiled for this image's shape.
        params: Backbone; this and all that follows is whole on each device (`everywhere`), but for `content`.
        image: `[H, W, 3]`.
        content: From `content_of`.
        styles: From `objective.blend`.
        weights: Traced.
        tick: Called after each tile with the share of the work that is done, in (0, 1].

    Returns:
        Total, terms, and the gradient `[H, W, 3]`, which lies as `spread` says.
    """
    sums, gradient = passes.zeros()
    work = list(zip(passes.places, content.targets, strict=True))

    def done(array, number):
        if tick is not None:
            jax.block_until_ready(array)
            tick(number / (3 * len(work)))

    for number, (places, target) in enumerate(work, 1):
        sums = passes.first(params, image, places, target, sums)
        done(sums, number)
    terms, slopes = passes.middle(sums, content.powers, styles, weights)
    for number, (places, target) in enumerate(work, 1):
        gradient = passes.second(params, image, slopes, places, target, gradient)
        done(gradient, len(work) + 2 * number)  # a pass back is as much work as one ahead
    return passes.last(image, gradient, terms, weights)


def style_statistics(
    params: Params, style: Image, tiling: Tiling, spec: ObjectiveSpec, *, mesh: Mesh
) -> dict[str, Statistic]:
    """`objective.style_statistics` of a picture that is too large for it; `tiling` is of the picture's shape."""
    spec = dataclasses.replace(spec, content_layers=())
    parts = _parts(tiling, spec)
    image = jax.ShapeDtypeStruct(style.shape, style.dtype)
    place = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    empty = _shaped(jax.eval_shape(parts.sums, params, image, place, {}), lead=(mesh.size,))
    make = lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)  # noqa: E731
    sums = jax.jit(make, out_shardings=NamedSharding(mesh, _EACH))()
    places = _places(tiling, mesh)
    lowered = _spread(parts.first, 2, mesh=mesh, donated=4).lower(params, style, places[0], {}, sums)
    program = compiler.compiled(lowered)
    for each in places:
        sums = program(params, style, each, {}, sums)
    shapes = _map_shapes(params, image, spec)
    divide = lambda style: _divided(jax.tree.map(lambda parts: parts.sum(0), style), shapes, spec)  # noqa: E731
    return jax.jit(divide, out_shardings=everywhere(mesh))(sums.style)


def _parts(tiling, spec):
    if spec.padding == "wrap" and tiling.total > 1:
        raise ValueError("padding='wrap': expected a tiling of one tile")
    return _Parts(tiling, spec)


class _Parts(NamedTuple):
    """What is computed of one tile; `place` is one of `Tiling.places`."""

    tiling: Tiling
    spec: ObjectiveSpec

    def target(self, params, image, place):
        found = self._features(params, self._window(image, place), place, self.spec.content_layers)
        return found, objective.content_powers(found)

    def sums(self, params, image, place, target):
        return self._sums(params, self._window(image, place), place, target)

    def first(self, params, image, place, target, sums):
        return jax.tree.map(jnp.add, sums, self.sums(params, image, place, target))

    def second(self, params, image, slopes, place, target, gradient):
        window = self._window(image, place)
        _, pull_back = jax.vjp(lambda window: self._sums(params, window, place, target), window)
        start = (place[0, 0], place[1, 0], jnp.int32(0))
        before = lax.dynamic_slice(gradient, start, window.shape)
        return lax.dynamic_update_slice(gradient, before + pull_back(slopes)[0], start)

    def _window(self, image, place):
        return lax.dynamic_slice(image, (place[0, 0], place[1, 0], jnp.int32(0)), (*self.tiling.window, 3))

    def _sums(self, params, window, place, target):
        found = self._features(params, window, place, objective.layers_of(self.spec))
        return objective.sums_of(found, target, self.spec)

    def _features(self, params, window, place, layers):
        if not layers:
            return {}
        found = vgg.features(params, window, layers, pooling=self.spec.pooling, padding=self.spec.padding)
        return {layer: self._own(found[layer], place, 2 ** halvings_of(layer)) for layer in layers}

    def _own(self, x, place, stride):
        """The tile's own features; a tile that is smaller than the others is filled up with zeros."""
        size = [min(tile // stride, length) for tile, length in zip(self.tiling.tile, x.shape, strict=False)]
        first, end = place[:, 1] // stride, place[:, 2] // stride
        start = jnp.minimum(first, jnp.array(x.shape[:2], jnp.int32) - jnp.array(size, jnp.int32))
        x = lax.dynamic_slice(x, (start[0], start[1], jnp.int32(0)), (*size, x.shape[2]))
        rows, columns = (
            (jnp.arange(n) + at >= lo) & (jnp.arange(n) + at < hi)
            for n, at, lo, hi in zip(size, start, first, end, strict=True)
        )
        return jnp.where((rows[:, None] & columns[None])[..., None], x, 0)


def _middle(sums, powers, styles, weights, *, shapes, spec):
    """From the sums of each device: the terms, and their sum's slope by the sums of all."""

    def loss(sums):
        terms = objective.style_terms(sums, shapes, powers, styles, weights, spec)
        return terms["content"] + terms["style"], terms

    slopes, terms = jax.grad(loss, has_aux=True)(jax.tree.map(lambda parts: parts.sum(0), sums))
    return terms, slopes


def _last(image, gradients, terms, weights, *, spec):
    """The total variation, which needs no features, and the sum of it all."""

    def loss(image):
        return weights.tv * losses.total_variation_loss(image, spec.tv, spec.normalization)

    tv, slope = jax.value_and_grad(loss)(image)
    total = terms["content"] + terms["style"] + tv
    return total, {"total": total, **terms, "tv": tv}, gradients.sum(0) + slope


def _map_shapes(params, image, spec):
    found = jax.eval_shape(
        functools.partial(vgg.features, layers=objective.layers_of(spec), pooling=spec.pooling, padding=spec.padding),
        params,
        image,
    )
    return {layer: map_.shape for layer, map_ in found.items()}


def _divided(sums, shapes, spec):
    return {name: losses.style_statistic(each, shapes[name], spec.normalization) for name, each in sums.items()}


def _places(tiling, mesh):
    """Of each call, `[devices, 2, 3]`; where there are more devices than tiles left, tiles of no size."""
    places, calls = tiling.places, -(-tiling.total // mesh.size)
    none = np.zeros((calls * mesh.size - len(places), 2, 3), np.int32)
    each = np.concatenate([places, none]).reshape(calls, mesh.size, 2, 3)
    # By callback: put on the devices of several processes, JAX would compare them over the network.
    put = lambda one: jax.make_array_from_callback(one.shape, NamedSharding(mesh, _EACH), one.__getitem__)  # noqa: E731
    return tuple(map(put, each))


def _spread(function, shared, *, mesh, donated=None):
    """`function` on each device: its first `shared` arguments are whole there, the others and what it returns have a
    first axis of devices."""

    def one(*arguments):
        own = jax.tree.map(lambda leaf: leaf[0], arguments[shared:])
        return jax.tree.map(lambda leaf: leaf[None], function(*arguments[:shared], *own))

    def spread_(*arguments):
        specs = (_ALL,) * shared + (_EACH,) * (len(arguments) - shared)
        return jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=_EACH, check_vma=False)(*arguments)

    return jax.jit(spread_, donate_argnums=donated)


def _shaped(tree, *, sharding=None, lead=()):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype, sharding=sharding), tree)
