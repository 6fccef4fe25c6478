"""jnst: neural style transfer and its family, as pure JAX functions.

>>> import jnst
>>> jnst.__version__.count(".")
2
"""

from jnst.errors import InputError
from jnst.version import __version__

__all__ = ["InputError", "Result", "__version__", "stylize"]


def __getattr__(name):
    # Late, so that `jnst --help` and `import jnst` do not wait for jax.
    if name in ("stylize", "Result"):
        from jnst import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
