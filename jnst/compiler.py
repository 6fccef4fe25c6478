"""Compiling with the options that were measured to be faster."""

import functools
from collections.abc import Callable

import jax

__all__ = ["OPTIONS", "bytes_of", "compiled", "jit", "platform"]

OPTIONS = {
    # Winograd's products of small matrices run 1.5 to 1.7 times faster by Eigen than by YNNPACK (jaxlib 0.10.2, two
    # cores), large ones equally fast; so do convolutions of 128 channels and more, up to three times.
    "cpu": {"xla_cpu_experimental_ynn_fusion_type": ""},
}
"""By platform. Another release of XLA may not know one: then none is set."""


def compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """`lowered.compile()` with the options of the device that computes by default.

    >>> import jax.numpy as jnp
    >>> int(compiled(jax.jit(lambda x: x + 1).lower(1))(1))
    2
    """
    options = OPTIONS.get(platform())
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if options is None or "No such compile option" not in str(error):
            raise
        return lowered.compile()


def jit(function: Callable, **options: object) -> Callable:
    """`jax.jit(function, **options)`, with the options of the device that computes by default when it is called.

    >>> import jax.numpy as jnp
    >>> int(jit(lambda x, y: x + y, static_argnames=("y",))(jnp.int32(1), y=2))
    3
    """
    of = functools.cache(lambda kind: jax.jit(function, compiler_options=_known(kind), **options))
    return functools.wraps(function)(lambda *arguments, **named: of(platform())(*arguments, **named))


@functools.cache
def _known(kind):
    """The options of a platform, where this release of XLA knows them."""
    options = OPTIONS.get(kind)
    if options is None:
        return None
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(1).compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return None
    return dict(options)


def platform() -> str:
    """Of the device that computes by default here: `cpu`, `gpu` or `tpu`."""
    device = jax.config.jax_default_device
    if device is None or isinstance(device, str):  # a backend's name may be one of several, such as cuda
        return jax.devices(device)[0].platform
    return device.platform


def bytes_of(compiled: jax.stages.Compiled) -> int:
    """What a program needs on a device: arguments, results and all between; 0 where that is not known."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total - memory.alias_size_in_bytes
