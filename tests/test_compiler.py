from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import compiler


class _Lowered:
    """Keeps the options it is compiled with; refuses as it is told."""

    def __init__(self, *errors):
        self.seen, self._errors = [], [*errors]

    def compile(self, compiler_options=None):
        self.seen.append(compiler_options)
        if self._errors:
            raise self._errors.pop(0)
        return "compiled"


def _products():
    """Of matrices as Winograd has them for a map of 64 x 64 and 64 channels."""
    return jax.jit(jnp.matmul).lower(*(jax.ShapeDtypeStruct((36, n, 64), jnp.float32) for n in (256, 64)))


def test_gives_the_numbers_that_jit_gives(rng):
    a, b = (jnp.asarray(rng.standard_normal((36, n, 64)), jnp.float32) for n in (256, 64))
    np.testing.assert_allclose(compiler.compiled(_products())(a, b), a @ b, rtol=0, atol=1e-4)


def test_products_on_a_cpu_are_not_given_to_ynnpack():
    if jax.devices()[0].platform != "cpu":
        pytest.skip("the option is the CPU's")
    if "ynn_fusion" not in _products().compile().as_text():
        pytest.skip("this release of XLA does not give them to it by itself")
    assert "ynn_fusion" not in compiler.compiled(_products()).as_text()


def test_options_are_those_of_the_platform(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {"tpu": {"a": 1}, "gpu": {"b": 2}})
    for platform, options in (("tpu", {"a": 1}), ("gpu", {"b": 2}), ("cpu", None)):
        monkeypatch.setattr(compiler, "platform", lambda platform=platform: platform)
        lowered = _Lowered()
        assert compiler.compiled(lowered) == "compiled"
        assert lowered.seen == [options]


def test_an_option_that_this_release_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {jax.devices()[0].platform: {"xla_no_such_option": ""}})
    lowered = jax.jit(lambda x: x + 1).lower(1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):  # the test's own check
        lowered.compile(compiler_options={"xla_no_such_option": ""})
    assert int(compiler.compiled(lowered)(1)) == 2


def test_a_wrong_value_of_an_option_is_an_error(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {jax.devices()[0].platform: {"xla_embed_ir_in_executable": "perhaps"}})
    with pytest.raises(jax.errors.JaxRuntimeError, match="perhaps"):
        compiler.compiled(jax.jit(lambda x: x + 1).lower(1))


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"), ValueError("No such compile option")]
)
def test_other_errors_are_not_swallowed(monkeypatch, error):
    monkeypatch.setattr(compiler, "OPTIONS", {compiler.platform(): {"a": 1}})
    lowered = _Lowered(error)
    with pytest.raises(type(error), match=str(error)):
        compiler.compiled(lowered)
    assert len(lowered.seen) == 1


def test_an_error_without_options_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {})
    lowered = _Lowered(jax.errors.JaxRuntimeError("No such compile option"))
    with pytest.raises(jax.errors.JaxRuntimeError):
        compiler.compiled(lowered)
    assert lowered.seen == [None]


# ---- Functions that compile when they are called


def test_jit_sets_the_options_and_takes_those_of_jax(rng, monkeypatch):
    if compiler.platform() != "cpu":
        pytest.skip("the options are the CPU's")
    asked, real = [], jax.jit
    monkeypatch.setattr(jax, "jit", lambda *a, **options: asked.append(options) or real(*a, **options))
    power = compiler.jit(lambda x, n: x**n, static_argnames=("n",))
    assert not asked  # nor is a device looked up before there is a call
    assert [int(power(jnp.int32(3), n=n)) for n in (2, 3)] == [9, 27]
    assert [options for options in asked if "static_argnames" in options] == [
        {"static_argnames": ("n",), "compiler_options": compiler.OPTIONS["cpu"]}
    ]


def test_jit_leaves_out_what_this_release_does_not_know(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {compiler.platform(): {"xla_no_such_option": ""}})
    compiler._known.cache_clear()
    try:
        assert int(compiler.jit(lambda x: x + 1)(1)) == 2
    finally:
        compiler._known.cache_clear()


# ---- The platform


def test_the_platform_is_that_of_the_first_device(monkeypatch):
    assert compiler.platform() == jax.devices()[0].platform
    monkeypatch.setattr(jax, "devices", lambda *_: [SimpleNamespace(platform="gpu"), SimpleNamespace(platform="cpu")])
    assert compiler.platform() == "gpu"


def test_the_platform_is_that_of_the_device_of_the_context(monkeypatch):
    cpu = jax.local_devices(backend="cpu")[0]
    platforms = {None: "tpu", "cpu": "cpu", "gpu": "gpu"}
    monkeypatch.setattr(jax, "devices", lambda backend=None: [SimpleNamespace(platform=platforms[backend])])
    assert compiler.platform() == "tpu"
    for device in (cpu, "cpu"):
        with jax.default_device(device):
            assert compiler.platform() == "cpu"
            with jax.default_device("gpu"):
                assert compiler.platform() == "gpu"
    assert compiler.platform() == "tpu"


def test_the_platform_is_known_while_tracing(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: [SimpleNamespace(platform="tpu")])
    seen = []
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        jax.eval_shape(lambda x: seen.append(compiler.platform()) or x, 1.0)
    jax.eval_shape(lambda x: seen.append(compiler.platform()) or x, 1.0)
    assert seen == ["cpu", "tpu"]
