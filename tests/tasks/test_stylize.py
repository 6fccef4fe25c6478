import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import loop, objective, ops
from jnst.config import PRESERVE_COLORS, StylizeConfig
from jnst.errors import InputError
from jnst.tasks import stylize as task
from jnst.tasks.stylize import stage
from jnst.types import Weights

KEY = jax.random.key(0)
BASE = StylizeConfig(
    steps=7,
    print_every=3,
    content_layers="relu2_1",
    style_layers="relu1_1,relu2_1",
    optimizer="adam",
    learning_rate=0.05,
)


def _config(**options):
    return StylizeConfig(**{**vars(BASE), **options})


@pytest.fixture(scope="module")
def params(tiny):
    return {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}


@pytest.fixture(scope="module")
def run(params, pictures):
    def run(config=BASE, styles=1, key=KEY, **options):
        content, style = pictures
        return task.stylize(key, params, content, [style, style[::-1]][:styles], config, **options)

    return run


def _same(one, other):
    np.testing.assert_array_equal(one.image, other.image)
    assert one.trace == other.trace


def test_the_trace_has_the_start_each_print_and_the_last_step(run):
    result = run()
    assert [row["step"] for row in result.trace] == [0, 3, 6, 7]
    assert all(list(row) == ["step", "total", "content", "style", "tv"] for row in result.trace)
    assert all(row["total"] == row["content"] + row["style"] + row["tv"] for row in result.trace)
    assert result.trace[-1]["total"] < 0.5 * result.trace[0]["total"]
    assert (result.stopped, result.bad_step, result.bad_term) == ("", -1, "")


@pytest.mark.parametrize(("every", "steps"), [(0, [0, 7]), (7, [0, 7]), (20, [0, 7]), (1, list(range(8)))])
def test_print_every_chooses_the_rows(run, every, steps):
    assert [row["step"] for row in run(_config(print_every=every)).trace] == steps


def test_step_zero_is_the_start_before_any_update(run, params, pictures):
    content, style = pictures
    expected = reference.objective(
        params,
        content,
        content,
        [style],
        [1.0],
        Weights(BASE.content_weight, BASE.style_weight, BASE.tv_weight, [1.0], [0.5, 0.5]),
        task.objective_spec(BASE, "zeros"),
    )
    first = run().trace[0]
    for name, value in expected.items():
        np.testing.assert_allclose(first[name], value, rtol=1e-4, atol=1e-9, err_msg=name)


def test_the_best_step_s_image_is_returned(run):
    seen = {}

    def callback(record):
        seen[record.step] = (record.terms["total"], record.image())

    result = run(_config(steps=12), callback=callback)  # a rate at which it goes down and up again
    best = min(seen, key=lambda step: seen[step][0])
    assert list(seen) == list(range(13))
    assert 0 < best < 12
    assert result.best_step == best
    np.testing.assert_array_equal(result.image, seen[best][1])
    assert not np.array_equal(result.image, seen[12][1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"init": "noise"},
        {"init": "mix", "noise_ratio": 1.0},
        {"projection": "none", "learning_rate": 0.8},
        {"canvas_scale": 255, "learning_rate": 30.0},
        {"preserve_color": "luminance", "learning_rate": 0.5},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_the_image_is_finite_float32_in_the_unit_range(run, options):
    image = run(_config(steps=3, **options)).image
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.slow
def test_the_step_is_traced_once_and_runs_without_tracing(run, monkeypatch):
    traces = []
    original = objective.style_objective

    def counted(*arguments):
        traces.append(1)
        return original(*arguments)

    monkeypatch.setattr(objective, "style_objective", counted)
    config = _config(steps=5, content_layers="relu1_2")  # a spec that no other test has compiled
    run(config)
    assert len(traces) == 1
    with jax.no_tracing():
        run(config)


@pytest.mark.slow
def test_other_weights_rates_mixes_and_steps_compile_nothing(run):
    run(_config(style_mix="0.5,0.5"), styles=2)
    events = []
    listen = lambda name, seconds, **_: events.append(name)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        other = _config(
            content_weight=0.1,
            style_weight=3.0,
            tv_weight=0.5,
            style_layers="relu1_1:0.7,relu2_1:0.1",
            content_layers="relu2_1:2",
            learning_rate=0.01,
            style_mix="0.1,0.9",
            steps=4,
            print_every=2,
        )
        with jax.no_tracing():
            run(other, styles=2)
        assert not [name for name in events if "compile" in name]
        run(_config(tv="l1"), styles=2)  # the listener does hear a compilation
        assert [name for name in events if "compile" in name]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_callback_stops_the_run(run):
    result = run(callback=lambda record: record.step == 4)
    assert result.stopped == "interrupted"
    assert [row["step"] for row in result.trace] == [0, 3, 4]
    assert result.best_step <= 4


def test_a_stop_at_the_last_step_is_no_interruption(run):
    result = run(callback=lambda record: record.step == 7)
    assert (result.stopped, result.trace[-1]["step"]) == ("", 7)


def test_the_callback_sees_every_step_with_its_terms(run):
    records = []
    result = run(callback=lambda record: records.append((record.step, record.steps, record.terms)))
    assert [(step, steps) for step, steps, _ in records] == [(step, 7) for step in range(8)]
    for row in result.trace:
        terms = records[row["step"]][2]
        assert terms.keys() == {"total", "content", "style", "tv"}
        assert {name: row[name] for name in ("content", "style", "tv")} == {
            name: terms[name] for name in ("content", "style", "tv")
        }


def test_divergence_is_named_and_the_best_picture_kept(run):
    result = run(_config(projection="none", learning_rate=1e12))
    assert (result.stopped, result.bad_step, result.bad_term) == ("diverged", 1, "style")
    assert result.best_step == 0
    assert [row["step"] for row in result.trace] == [0]
    assert np.isfinite(result.image).all()


def test_a_start_that_is_not_finite_leaves_no_picture(run, params, pictures):
    broken = params | {"conv2_1": jax.tree.map(lambda leaf: leaf * np.float32(1e30), params["conv2_1"])}
    result = task.stylize(KEY, broken, pictures[0], [pictures[1]], BASE)
    assert (result.stopped, result.bad_step, result.bad_term) == ("diverged", 0, "style")
    assert (result.image, result.best_step, result.trace) == (None, -1, [])


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"content": np.nan, "style": np.inf, "tv": 1.0}, "content"),
        ({"content": 1.0, "style": np.inf, "tv": np.nan}, "style"),
        ({"content": 1.0, "style": 1.0, "tv": np.nan}, "tv"),
        ({"content": 3e38, "style": 3e38, "tv": 0.0}, "total"),  # each finite, the sum is not
    ],
)
def test_the_first_term_that_is_not_finite_is_named(params, pictures, terms, named):
    prepared = task.prepare(KEY, params, pictures[0], [pictures[1]], BASE)
    terms = {"total": np.inf if named == "total" else sum(terms.values()), **terms}
    stage = prepared.stage._replace(advance=lambda state, *_: (state._replace(step=jnp.int32(0)), terms))
    broken = prepared._replace(stage=stage)
    assert task.run(broken).bad_term == named


@pytest.mark.slow
def test_the_chunks_of_an_accelerator_give_the_same_run(run, monkeypatch):
    config = _config(steps=8, print_every=4, save_every=6)
    plain, seen = run(config), []
    monkeypatch.setattr(loop, "platform", lambda: "gpu")
    monkeypatch.setattr(loop, "ON_DEVICE", 3)
    chunked = run(config, callback=lambda record: seen.append(record.step))
    assert seen == [0, 3, 4, 6, 8]  # each row, each saved step, and never more than three steps unseen
    assert [row["step"] for row in chunked.trace] == [row["step"] for row in plain.trace]
    for ours, theirs in zip(chunked.trace, plain.trace, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-3, atol=1e-6)
    assert chunked.best_step == plain.best_step
    np.testing.assert_allclose(chunked.image, plain.image, atol=5e-3)


@pytest.mark.slow
def test_divergence_within_an_accelerator_s_chunk_is_found_at_its_step(run, monkeypatch):
    monkeypatch.setattr(loop, "platform", lambda: "gpu")
    monkeypatch.setattr(loop, "ON_DEVICE", 3)
    result = run(_config(projection="none", learning_rate=1e12, print_every=0, steps=8))
    assert (result.stopped, result.bad_step, result.bad_term, result.best_step) == ("diverged", 1, "style", 0)


def test_the_init_noise_depends_on_the_key_alone(run):
    config = _config(init="noise", steps=1)
    start = lambda key, config=config: _starts(run, key, config)  # noqa: E731
    np.testing.assert_array_equal(start(KEY), start(KEY, _config(init="noise", steps=1, style_weight=1.0)))
    assert np.abs(start(KEY) - start(jax.random.key(1))).max() > 0.05


def _starts(run, key, config):
    images = []
    run(config, key=key, callback=lambda record: images.append(record.image()))
    return images[0]


def test_noise_is_the_mean_color_plus_or_minus_twenty(run, params):
    noise = _starts(run, KEY, _config(init="noise", steps=1)) - params["mean"]
    assert np.abs(noise).max() <= 20 / 255 + 1e-6
    assert noise.min() < -15 / 255
    assert noise.max() > 15 / 255


def test_mix_starts_between_noise_and_content(run, pictures):
    noise = _starts(run, KEY, _config(init="noise", steps=1))
    mix = _starts(run, KEY, _config(init="mix", noise_ratio=0.25, steps=1))
    np.testing.assert_allclose(mix, 0.25 * noise + 0.75 * pictures[0], atol=1e-6)


def test_content_starts_at_the_content_and_a_picture_at_itself(run, pictures):
    images = []
    run(_config(steps=1), callback=lambda record: images.append(record.image()))
    np.testing.assert_array_equal(images[0], pictures[0])
    other = reference.smooth_picture(16, 16, seed=11)
    run(_config(steps=1), init=other, callback=lambda record: images.append(record.image()))
    np.testing.assert_array_equal(images[2], other)


def test_the_callers_arrays_survive_donation(params, pictures):
    content, style = map(jnp.asarray, pictures)
    task.stylize(KEY, params, content, [style], BASE, init=content)
    assert not content.is_deleted()
    np.testing.assert_array_equal(content, pictures[0])


def test_the_same_call_gives_the_same_run(run):
    _same(run(), run())


def test_style_mix_is_the_weighted_sum_of_grams(params, pictures):
    content, style = pictures
    styles = [style, style[::-1]]
    spec = task.objective_spec(BASE, "zeros")
    prepared = task.prepare(KEY, params, content, styles, _config(style_mix="3,1"))
    blended = prepared.stage.arguments()[1].style
    for layer, target in blended.items():
        one, other = (
            reference.gram(reference.features(params, each, [layer], spec.pooling, "zeros")[layer], "relative")
            for each in styles
        )
        np.testing.assert_allclose(target, 0.75 * one + 0.25 * other, rtol=1e-4, atol=1e-6)


def test_a_style_with_no_share_does_not_count(run):
    alone, mixed = run(), run(_config(style_mix="1,0"), styles=2)
    np.testing.assert_allclose(mixed.image, alone.image, atol=1e-5)


def test_layer_weights_count(run):
    plain = run().trace[0]
    doubled = run(_config(style_layers="relu1_1:1,relu2_1:1", content_layers="relu2_1:2")).trace[0]
    np.testing.assert_allclose(doubled["style"], 2 * plain["style"], rtol=1e-5)


def _chroma(image):
    return image - np.asarray(ops.luminance(jnp.asarray(image)))[..., None]


def test_luminance_keeps_the_content_s_chroma(run, pictures):
    image = run(_config(preserve_color="luminance", learning_rate=0.005)).image
    inside = ((image > 0) & (image < 1)).all(-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(_chroma(image)[inside], _chroma(pictures[0])[inside], atol=1e-6)
    assert np.abs(image - pictures[0]).max() > 0.005


def test_luminance_shows_the_network_shades_of_gray(params, pictures):
    prepared = task.prepare(KEY, params, pictures[0], [pictures[1]], _config(preserve_color="luminance"))
    assert np.ptp(prepared.begin().canvas, axis=-1).max() == 0


@pytest.mark.slow
def test_match_recolors_the_style_to_the_content(params, pictures):
    content, style = map(jnp.asarray, pictures)
    matched = task.prepare(KEY, params, content, [style], _config(preserve_color="match"))
    matched = matched.stage.arguments()[1].style
    recolored = np.asarray(jax.jit(ops.match_color)(style, content))
    plain = task.prepare(KEY, params, content, [style], BASE).stage.arguments()[1].style
    for layer, target in matched.items():
        found = reference.features(params, recolored, [layer], BASE.pooling, "zeros")[layer]
        np.testing.assert_allclose(target, reference.gram(found, "relative"), rtol=1e-3, atol=1e-5)
        assert np.abs(target - plain[layer]).max() > 1e-3


def test_preserve_color_has_no_other_modes():
    assert list(PRESERVE_COLORS) == ["none", "luminance", "match"]


@pytest.mark.slow
def test_bfloat16_goes_about_the_same_way(run):
    exact, rounded = run(), run(_config(precision="bfloat16"))
    assert rounded.image.dtype == np.float32
    assert rounded.trace != exact.trace
    np.testing.assert_allclose(rounded.trace[0]["style"], exact.trace[0]["style"], rtol=0.03)
    np.testing.assert_allclose(rounded.trace[-1]["total"], exact.trace[-1]["total"], rtol=0.15)


@pytest.mark.slow
def test_bfloat16_keeps_targets_canvas_and_optimizer_in_float32(params, pictures):
    prepared = task.prepare(KEY, params, pictures[0], [pictures[1]], _config(precision="bfloat16"))
    network, targets = prepared.stage.arguments()[:2]
    assert network["conv1_1"]["kernel"].dtype == jnp.bfloat16
    assert network["mean"].dtype == jnp.float32
    assert all(gram.dtype == jnp.float32 for gram in targets.style.values())
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(prepared.stage.like))


@pytest.mark.slow
def test_float64_computes_in_float64(run, x64, params, pictures):
    config = _config(precision="float64", steps=2)
    prepared = task.prepare(KEY, params, pictures[0], [pictures[1]], config)
    assert {leaf.dtype for leaf in jax.tree.leaves(prepared.stage.arguments())} == {np.dtype("float64")}
    assert prepared.begin().canvas.dtype == jnp.float64
    row = task.run(prepared).trace[0]
    content, style = pictures
    weights = Weights(BASE.content_weight, BASE.style_weight, BASE.tv_weight, [1.0], [0.5, 0.5])
    spec = task.objective_spec(config, "zeros")
    for name, value in reference.objective(params, content, content, [style], [1.0], weights, spec).items():
        np.testing.assert_allclose(row[name], value, rtol=1e-10, atol=1e-15, err_msg=name)


@pytest.mark.slow
def test_standardize_makes_the_scale_of_random_filters_irrelevant(params, pictures):
    unbiased = {name: {"kernel": params[name]["kernel"], "bias": 0 * params[name]["bias"]} for name in list(params)[1:]}
    rows = []
    for factor in (1, 100):
        scaled = {"mean": params["mean"]} | {
            name: layer | {"kernel": np.float32(factor) * layer["kernel"]} for name, layer in unbiased.items()
        }
        result = task.stylize(KEY, scaled, pictures[0], [pictures[1]], BASE, standardize=True)
        rows.append(list(result.trace[0].values()))
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4)


def test_only_the_layers_that_are_needed_go_to_the_device(tiny, pictures):
    prepared = task.prepare(KEY, tiny, pictures[0], [pictures[1]], BASE)
    assert prepared.stage.arguments()[0].keys() == {"mean", "conv1_1", "conv1_2", "conv2_1"}


@pytest.mark.slow
def test_footprint_is_known_before_a_step(params, pictures):
    def footprint(side):
        image = np.zeros((side, side, 3), np.float32)
        return task.footprint(KEY, params, image, [image], BASE, standardize=True)[0]

    small, large = footprint(16), footprint(5000)
    assert small > 4 * 16 * 16 * 3 * 5  # canvas, gradient, best canvas and Adam's two
    assert large > 4 * 5000 * 5000 * 3 * 5


# ---- No content, layers after a pooling, a torus


@pytest.mark.slow
def test_without_content_layers_the_total_is_style_and_variation(run, params, pictures):
    config = _config(content_layers="", style_layers="pool1,relu1_1", init="noise")
    result = run(config)
    assert [row["content"] for row in result.trace] == [0, 0, 0, 0]
    assert all(row["total"] == row["style"] + row["tv"] for row in result.trace)
    assert 0 < result.trace[-1]["total"] < 0.5 * result.trace[0]["total"]
    other = task.stylize(KEY, params, pictures[0][::-1] * 0.5, [pictures[1]], config)
    _same(result, other)  # of the content there is its size


@pytest.mark.slow
def test_without_content_layers_tiles_give_the_whole_run(x64, params):
    pictures = [reference.smooth_picture(45, 38, seed=seed) for seed in (1, 2)]
    found = []
    for tile in ("0", "16"):
        config = _config(
            steps=3, print_every=1, content_layers="", style_layers="pool1,relu2_1", tile=tile, precision="float64"
        )
        prepared = task.prepare(KEY, params, pictures[0], pictures[1:], config)
        assert prepared.stage.plan.tile == int(tile)
        found.append(task.run(prepared))
    assert all(row["total"] == row["style"] + row["tv"] for row in found[1].trace)
    np.testing.assert_allclose(found[1].image, found[0].image, atol=1e-7)  # float32 from float64
    for one, other in zip(*(result.trace for result in found), strict=True):
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-9, atol=1e-20)


def test_layers_in_another_order_are_one_program():
    specs = {
        task.objective_spec(_config(style_layers=layers), "zeros").style_layers
        for layers in ("pool1,conv2_1,relu1_2", "conv2_1,relu1_2,pool1")
    }
    assert specs == {("relu1_2", "pool1", "conv2_1")}


@pytest.mark.slow
def test_a_torus_is_never_cut(params, monkeypatch):
    monkeypatch.setattr(stage, "AUTO_TILES", (32, 16))  # which the picture would be cut into
    picture = reference.smooth_picture(45, 38, seed=1)
    prepare = lambda **options: task.prepare(  # noqa: E731
        KEY, params, picture, [picture[::-1]], _config(tile=options.pop("tile")), padding="wrap", **options
    )
    assert prepare(tile="auto", room=10**12).stage.plan.tile == 0
    with pytest.raises(InputError, match="^--tile=16: has no --padding=wrap; expected --tile=0, or another padding$"):
        prepare(tile="16")
    with pytest.raises(InputError, match="^--size: 38x45 pixels need .* free; expected a smaller --size$"):
        prepare(tile="auto", room=1000)
    with pytest.raises(InputError, match="expected a smaller --size$"):
        prepare(tile="0", room=1000)


@pytest.mark.slow
def test_on_a_torus_the_rolled_picture_becomes_the_rolled_one(x64, params, pictures):
    config = _config(steps=3, tv_weight=0.0, precision="float64", preconditioner="none")
    run = lambda content: task.stylize(KEY, params, content, [pictures[1]], config, padding="wrap").image  # noqa: E731
    np.testing.assert_allclose(run(np.roll(pictures[0], (6, 2), (0, 1))), np.roll(run(pictures[0]), (6, 2), (0, 1)))
