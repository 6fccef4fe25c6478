"""Files of small random stylenets, made without jax: its first numbers take seconds to compile."""

import numpy as np

from jnst.config import StyleNetSpec
from jnst.weights import stylenets

__all__ = ["SPEC", "variables", "write"]

SPEC = StyleNetSpec(widths=(4, 8), blocks=1, kernel=3, styles=2)


def variables(spec, seed=0):
    """Random numbers everywhere, as after a training: kernels around 0, all else from 0.2 to 1.

    A residual net's pictures are about as far from the photo as a trained one's.
    """
    rng = np.random.default_rng(seed)
    tree = {}
    for name, shape in stylenets.shapes(spec).items():
        *outer, last = name.split("/")
        place = tree
        for part in outer:
            place = place.setdefault(part, {})
        if len(shape) == 4 and name.startswith("params/"):
            values = rng.normal(size=shape) * np.sqrt((0.05 if last == "last" else 2) / np.prod(shape[:3]))
        else:
            values = rng.uniform(0.2, 1, shape)
        place[last] = values.astype(np.float32)
    tree["params"]["bias"] -= np.float32(0.6)
    return tree


def write(path, *, spec=SPEC, styles=("waves", "stars"), change=None, seed=0):
    """Writes one and returns its name; `change` may alter its parameters."""
    tree = variables(spec, seed)
    if change:
        change(tree["params"])
    stylenets.save(path, tree, spec=spec, styles=styles, record={}, licence="CC0-1.0")
    return str(path)
