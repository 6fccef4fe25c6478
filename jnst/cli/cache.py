"""The compilation cache: a second run of the same shapes starts without compiling."""

import jax

from jnst.files import cache_folder

__all__ = ["use"]


def use() -> None:
    """Keeps compiled programs in `xla` in jnst's cache folder; where that cannot be written, runs go on without."""
    path = cache_folder() / "xla"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
