"""How far made pictures are from held-out ones, by the features of a network that the numbers are named after."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jnst import distances, network, weights
from jnst.cli import download
from jnst.cli.lines import say
from jnst.tasks import dcgan

__all__ = ["Judge", "some"]

_LAYER, _POOLING = "relu4_1", "avg"
_STANDARDIZED_ON = 8  # pictures that random filters are scaled on


class Judge:
    """A backbone that looks at pictures.

    Raises:
        InputError: no such weights.
    """

    def __init__(self, name: str, source: str):
        self._file = weights.load(name, [_LAYER], source=source, progress=download.Bar)
        self._file.require("weights", [_LAYER])
        self.sha256 = self._file.sha256

    def compare(
        self, real: np.ndarray, held_out: np.ndarray, made: Mapping[str, Callable[[], np.ndarray]], *, of: str = ""
    ) -> dict[str, object]:
        """Says, and returns, the Fréchet and the kernel distance of made pictures, and of real ones, to held-out ones.

        Args:
            real: Pictures that were trained on, `[N, S, S, 3]` uint8.
            held_out: As many others.
            made: By network, what gives as many pictures, `[N, S, S, 3]` in [0, 1].
            of: What kind of pictures they are, for the lines.
        """
        file = self._file
        judge = network.network(
            file.params,
            [jnp.asarray(picture, jnp.float32) / 255 for picture in real[:_STANDARDIZED_ON]],
            [_LAYER],
            pooling=_POOLING,
            padding=file.padding,
            standardize=file.standardize,
        )
        seen = lambda pictures: dcgan.features(judge, pictures, _LAYER, pooling=_POOLING, padding=file.padding)  # noqa: E731
        name, target = Path(file.name).stem, seen(held_out)
        best = _apart(seen(real), target, name)
        say(
            f"distances to {len(held_out)} held-out pictures{of and f' {of}'}, by {_LAYER} of {name} (which is not FID)"
        )
        say(f"  training pictures: {_said(best)}")
        found = {}
        for label, pictures in made.items():
            found[label] = _apart(seen(pictures()), target, name)
            say(f"  {label}: {_said(found[label])}")
        described = {"name": name, "sha256": self.sha256, "layer": _LAYER, "pooling": _POOLING}
        return {"network": described, "pictures": len(held_out), "training_pictures": best, "networks": found}


def some(pictures: np.ndarray, count: int) -> np.ndarray:
    """So many from all over: files lie by classes."""
    return pictures[np.sort(np.random.default_rng(0).permutation(len(pictures))[:count])]


def _apart(features, target, name):
    near = distances.kernel(features, target)
    found = {
        f"frechet_{name}": distances.frechet(features, target),
        f"kernel_{name}": near["distance"],
        f"kernel_{name}_error": near["error"],
    }
    return {key: float(f"{value:.5g}") for key, value in found.items() if np.isfinite(value)}


def _said(found):
    return "  ".join(f"{name} {value:.4g}" for name, value in found.items())
