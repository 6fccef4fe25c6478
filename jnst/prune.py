"""Channel pruning: a narrow network that begins as a part of a wide one.

Layer by layer, the channels that tell most of the others are kept, and the narrow network's kernel is the one that
comes closest, by least squares, to what the wide one has before the rectifier there. After He, Zhang & Sun 2017
(Channel Pruning for Accelerating Very Deep Neural Networks), who keep channels by a lasso on the next layer.
Departures: channels are kept greedily, by what is left of the others' variance (column subset selection, as in a
pivoted Cholesky factorization), and the two networks may pool differently: least squares makes the best of that, too.

Host and device: sums of squares are added up in NumPy's float64, where nearly dependent channels need it.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jnst import ops
from jnst.conv import conv3x3
from jnst.types import Params

__all__ = ["prune", "select"]

_RIDGE = 1e-4  # of the mean diagonal
_QUIET = 1e-3  # of the mean variance, added to each channel's
_ENOUGH = 32  # places in each direction of a map that are looked at


def select(covariance: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` channels from which the others are told best, by a greedy choice.

    Each channel counts by its deviation: between its variance, where a few loud ones are all that is seen, and
    whitening, where those that are almost always 0 count as much as any.

    Args:
        covariance: `[C, C]`.
        count: At most `C`.

    >>> select(np.diag([1.0, 9.0, 4.0]), 2).tolist()
    [1, 2]
    """
    spread = np.diag(covariance) + _QUIET * max(np.diag(covariance).mean(), 1e-30)
    left = covariance / np.outer(spread, spread) ** 0.25
    chosen: list[int] = []
    for _ in range(count):
        diagonal = np.diag(left)
        # A channel that the chosen ones already tell has nothing left: rounding must not make it the best.
        gain = np.where(diagonal > 1e-9 * spread.max() ** 0.5, (left**2).sum(0) / np.maximum(diagonal, 1e-30), 0)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        if left[best, best] > 0:
            left = left - np.outer(left[:, best], left[best]) / left[best, best]
    return np.array(chosen)


def prune(
    images: Sequence[np.ndarray],
    wide: Mapping[str, Sequence[np.ndarray]],
    widths: Mapping[str, int],
    mean: np.ndarray,
    *,
    pooling: str,
    padding: str,
) -> Params:
    """The narrow network, each layer scaled to unit deviation after its rectifier.

    Args:
        images: Each `[H, W, 3]`.
        wide: By convolution, in order: the wide network's maps before the rectifier, `[h, w, C]` of each image.
        widths: By convolution, how many channels to keep, at most `C`.
        mean: `[3]`, taken off an image first.
        pooling: The narrow network's.
        padding: The narrow network's.
    """
    params: dict[str, object] = {"mean": jnp.asarray(mean, jnp.float32)}
    xs = [jnp.asarray(image, jnp.float32) - params["mean"][None, None] for image in images]
    for name, targets in wide.items():
        if name.endswith("_1") and name != "conv1_1":
            xs = [ops.pool(x, pooling) for x in xs]
        kept = select(_covariance([np.maximum(target, 0) for target in targets]), widths[name])
        kernel, bias = _regress(xs, [target[..., kept] for target in targets], padding)
        xs = [jax.nn.relu(conv3x3(x, kernel, bias, padding=padding)) for x in xs]
        deviation = np.sqrt(np.mean([np.var(x, axis=(0, 1)).mean() for x in xs]))
        scale = 1 / deviation if deviation > 0 else 1.0
        params[name] = {"kernel": kernel * scale, "bias": bias * scale}
        xs = [x * scale for x in xs]
    return params


def _covariance(maps):
    flat = [x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (x[_places(x)] for x in maps)]
    return np.atleast_2d(np.cov(np.concatenate(flat), rowvar=False, ddof=0))


def _places(x):
    return tuple(slice(None, None, max(1, side // _ENOUGH)) for side in x.shape[:2])


def _regress(inputs, targets, padding):
    """The kernel `[3, 3, c, w]` and bias `[w]` that take `inputs` closest to `targets`."""
    own, cross = 0.0, 0.0
    for x, target in zip(inputs, targets, strict=True):
        patches = _patches(x, padding)[_places(x)]
        patches = np.asarray(patches, np.float64).reshape(-1, patches.shape[-1])
        own = own + patches.T @ patches
        cross = cross + patches.T @ target[_places(target)].reshape(len(patches), -1)
    size, width = len(own), cross.shape[1]
    found = np.linalg.solve(own + _RIDGE * np.trace(own) / size * np.eye(size), cross)
    kernel = found[:-1].reshape(3, 3, -1, width)
    return jnp.asarray(kernel, jnp.float32), jnp.asarray(found[-1], jnp.float32)


def _patches(x, padding):
    """`[h, w, 9 c + 1]`: what a 3x3 kernel sees at each place, and a 1 for its bias."""
    h, w, c = x.shape
    # A convolution with one tap of one channel each: so the border is the convolution's own.
    taps = jnp.eye(9 * c, dtype=x.dtype).reshape(3, 3, c, 9 * c)
    seen = conv3x3(x, taps, jnp.ones(9 * c, x.dtype) * 0, padding=padding)
    return jnp.concatenate([seen, jnp.ones((h, w, 1), x.dtype)], -1)
