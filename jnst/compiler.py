"""Compiling with the options that were measured to be faster."""

import jax

__all__ = ["OPTIONS", "bytes_of", "compiled", "platform"]

OPTIONS = {
    # Winograd's products of small matrices run 1.5 to 1.7 times faster by Eigen than by YNNPACK (jaxlib 0.10.2, two
    # cores), large ones equally fast.
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
