"""The compilation cache: a second run of the same shapes starts without compiling."""

import os
from pathlib import Path

import jax
import platformdirs

__all__ = ["folder", "use"]


def folder() -> Path:
    """`JNST_CACHE`, else jnst's folder among the user's caches."""
    return Path(os.environ.get("JNST_CACHE") or platformdirs.user_cache_dir("jnst"))


def use() -> None:
    """Keeps compiled programs in `folder()/xla`; where that cannot be written, runs go on without."""
    path = folder() / "xla"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
