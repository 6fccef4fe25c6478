"""What all tests share: strict shapes, one compilation cache for the session, a tiny network, the shared data."""

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
import reference

_CACHE = pytest.StashKey[str]()
_COMPILED_SOON = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",  # the tests' other process has the other core
)
"""A quarter of the compiler's time, and small programs run as soon. What they compute is the same up to rounding."""


def pytest_configure(config):
    # What a shell starts in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before anything is compiled: jax looks at the cache folder only once. Commands that tests start inherit it, so do
    # the workers of a parallel run, and nobody's own cache is touched.
    if not hasattr(config, "workerinput"):
        config.stash[_CACHE] = os.environ["JNST_CACHE"] = tempfile.mkdtemp(prefix="jnst-tests-")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Most of the time goes to compiling. XLA_FLAGS= bin/test compiles as users do.
    os.environ.setdefault("XLA_FLAGS", " ".join(_COMPILED_SOON))
    jax.config.update("jax_compilation_cache_dir", os.path.join(os.environ["JNST_CACHE"], "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # Traces and programs stay; looking through them again and again for garbage is a twentieth of the time.
    gc.set_threshold(100_000, 50, 50)
    # [C] against [H, W, C] is right by luck where H, W and C are alike: broadcasting is spelled out.
    jax.config.update("jax_numpy_rank_promotion", "raise")


_MOST_MAPS = 20_000
"""Of a process's pieces of memory, from which on compiled programs are dropped. Each has a few, and where Linux' 65,530
(vm.max_map_count) are used up the next one to be compiled ends the process."""
_LOOK_EVERY = 25  # tests


def pytest_runtest_logfinish(nodeid, location):
    _looked.append(nodeid)
    if len(_looked) < _LOOK_EVERY:
        return
    _looked.clear()
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()


_looked = []


def pytest_unconfigure(config):
    if _CACHE in config.stash:
        shutil.rmtree(config.stash[_CACHE], ignore_errors=True)


@pytest.fixture
def x64():
    """64-bit numbers within one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def shared():
    """The folder with real weights and pictures beside the checkout, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: real weights and pictures are not part of the repo")
    return folder


@pytest.fixture(scope="session")
def tiny():
    """VGG-19 with 4 to 8 channels and random biases, all 16 layers, float32 numpy."""
    return reference.random_params((4, 5, 6, 7, 8), seed=0)


@pytest.fixture(scope="session")
def tiny_file(tiny, tmp_path_factory):
    """The tiny network as a canonical weights file."""
    from jnst import weights

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save_safetensors(path, tiny, origin="random", licence="none")
    return str(path)


@pytest.fixture(scope="session")
def pictures():
    """Two smooth pictures in [0.1, 0.9], `[16, 16, 3]` and `[12, 20, 3]` float32."""
    return reference.smooth_picture(16, 16, seed=1), reference.smooth_picture(12, 20, seed=2)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
