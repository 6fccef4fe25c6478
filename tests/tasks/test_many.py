"""Runs in a batch against the same runs alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import grid, loop, objective
from jnst.config import StylizeConfig
from jnst.tasks import stylize as task
from jnst.tasks.stylize import many

BASE = StylizeConfig(
    steps=8, print_every=3, checkpoint_every=0, content_layers="relu2_1", style_layers="relu1_1,relu2_1"
)
ADAM = {"optimizer": "adam", "learning_rate": 0.02}


@pytest.fixture(scope="module")
def params(tiny):
    return {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}


@pytest.fixture(scope="module")
def contents(pictures):
    return pictures[0], np.ascontiguousarray(pictures[0][::-1])


@pytest.fixture(scope="module")
def styles(pictures):
    return pictures[1], reference.smooth_picture(10, 14, seed=3)


@pytest.fixture(scope="module")
def run(contents, styles):
    def run(style=(0,), content=0, start=None, **options):
        config = StylizeConfig(**{**vars(BASE), **options})
        pictures = tuple(styles[place] for place in style)
        return many.Run(jax.random.key(config.seed), config, contents[content], pictures, start)

    return run


class _Batch:
    """What compiles and drives a list of runs, `lanes` at once."""

    def __init__(self, runs, params, lanes, *, padding="zeros", standardize=False, compile_for=None):
        self.runs, self.results, self.seconds = runs, {}, {}
        self.arguments = {
            "lanes": lanes,
            "tables": many.table_sizes(compile_for or runs, lanes=lanes),
            "padding": padding,
            "standardize": standardize,
            "mesh": grid.make_mesh(jax.devices()),
        }
        self.params = params
        self.program = many.compile_batch(compile_for or runs, params, **self.arguments)

    def all(self, callback=None, kept=None):
        lanes = self.program.lanes
        for first in range(0, len(self.runs), lanes):
            batch = many.begin(self.runs[first : first + lanes], self.params, kept=kept, **self.arguments)

            def keep(place, result, best_terms, seconds, first=first):
                assert first + place not in self.results, "a run that ended twice"
                self.results[first + place] = (result, best_terms)
                self.seconds[first + place] = seconds

            self.ended = many.drive(self.program, batch, keep=keep, callback=callback)
        return self.results


def _alone(run, params, **options):
    return task.stylize(run.key, params, run.content, run.styles, run.config, init=run.init, **options)


def _check_same(result, alone, *, trace=1e-8, image=1e-6):
    assert (result.best_step, result.stopped, result.bad_step, result.bad_term) == (
        (alone.best_step, alone.stopped, alone.bad_step, alone.bad_term)
    )
    assert [row["step"] for row in result.trace] == [row["step"] for row in alone.trace]
    for ours, theirs in zip(result.trace, alone.trace, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=trace, atol=1e-12)
    np.testing.assert_allclose(result.image, alone.image, atol=image)


# Every flag that is traced takes on two values.
AXES = {
    "style": {"style": (1,)},
    "blend": {"style": (0, 1)},
    "style_mix": {"style": (0, 1), "style_mix": "0.9,0.1"},
    "content": {"content": 1},
    "init": {"start": reference.smooth_picture(16, 16, seed=9)},
    "noise": {"init": "noise", "seed": 7},
    "seed": {"seed": 5},
    "noise_ratio": {"noise_ratio": 0.2},
    "noise_width": {"noise_width": 100.0},
    "content_weight": {"content_weight": 30.0},
    "style_weight": {"style_weight": 3.0},
    "tv_weight": {"tv_weight": 0.0},
    "learning_rate": {"learning_rate": 0.3},
    "style_layers": {"style_layers": "relu1_1:0.9,relu2_1:0.1"},
    "order of layers": {"style_layers": "relu2_1:0.7,relu1_1:0.3"},
    "content_layers": {"content_layers": "relu2_1:3"},
    "match": {"preserve_color": "match"},
    "luminance": {"preserve_color": "luminance"},
    "luminance of content": {"preserve_color": "luminance", "content": 1, "style": (1,)},
    "steps": {"steps": 5},
    "bit_depth": {"bit_depth": 16},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [pytest.param(ADAM, id="adam"), pytest.param({"optimizer": "lbfgs", "history": 4}, id="lbfgs")],
)
def test_every_traced_flag_shares_one_trace_and_gives_what_it_gives_alone(
    x64, params, run, contents, options, monkeypatch
):
    traces, original = [], objective.style_objective
    monkeypatch.setattr(objective, "style_objective", lambda *them: traces.append(1) or original(*them))
    common = {**options, "init": "mix", "precision": "float64"}
    runs = [run(**common), *(run(**{**common, **each}) for each in AXES.values())]
    keys = {many.program_key(one.config, shape=one.content.shape, padding="zeros") for one in runs}
    assert len(keys) == 1
    found = _Batch(runs, params, 7).all()
    assert len(traces) == 1
    assert len(found) == len(runs)
    finals = set()
    for place, one in enumerate(runs):
        _check_same(found[place][0], _alone(one, params))
        finals.add(found[place][0].image.tobytes())
    assert len(finals) == len(runs) - 1  # bit_depth alone changes only the file


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "max"},
        {"optimizer": "adam"},
        {"history": 3},
        {"style_layers": "relu1_1"},
        {"content_layers": "conv2_1"},
        {"normalization": "gatys"},
        {"tv": "l1"},
        {"precision": "bfloat16"},
        {"projection": "none"},
        {"canvas_scale": 255},
        {"line_search": "zoom"},
    ],
    ids=str,
)
def test_static_flags_make_a_program_of_their_own(run, options):
    one, other = run().config, run(**options).config
    key = lambda config: many.program_key(config, shape=(16, 16, 3), padding="zeros")  # noqa: E731
    assert key(one) != key(other)
    assert key(one) != many.program_key(one, shape=(16, 8, 3), padding="zeros")
    assert key(one) != many.program_key(one, shape=(16, 16, 3), padding="reflect")


def test_what_an_optimizer_has_no_use_for_makes_no_program(run):
    key = lambda config: many.program_key(config, shape=(16, 16, 3), padding="zeros")  # noqa: E731
    assert key(run(history=5, **ADAM).config) == key(run(history=9, **ADAM).config)


@pytest.mark.slow
def test_in_single_precision_adam_stays_within_the_stated_tolerance(params, run):
    """README: over the first eight steps pictures agree to 0.1 of 255 in the root mean square."""
    runs = [run(style_weight=weight, style=style, **ADAM) for weight in (1.0, 1e3) for style in ((0,), (1,))]
    for place, (result, _) in _Batch(runs, params, 4).all().items():
        alone = _alone(runs[place], params)
        difference = np.sqrt(np.mean((result.image - alone.image) ** 2))
        assert difference < 0.1 / 255
        np.testing.assert_allclose(result.trace[-1]["total"], alone.trace[-1]["total"], rtol=1e-3)


@pytest.mark.slow
def test_the_terms_are_those_of_the_best_picture(params, run):
    config = {"optimizer": "adam", "learning_rate": 0.05, "steps": 12, "print_every": 1}  # goes down and up again
    result, terms = _Batch([run(**config)], params, 1).all()[0]
    assert result.best_step < 12
    best = next(row for row in result.trace if row["step"] == result.best_step)
    np.testing.assert_allclose([terms[name] for name in terms], [best[name] for name in terms], rtol=1e-6)


@pytest.mark.slow
def test_random_filters_share_a_network_only_where_the_pictures_are_the_same(x64, params, run):
    runs = [run(style=style, style_weight=weight, precision="float64") for style in ((0,), (1,)) for weight in (1, 9)]
    kin = [many.kin_key(one, standardize=True) for one in runs]
    assert kin[0] == kin[1] != kin[2] == kin[3]
    assert len({many.kin_key(one, standardize=False) for one in runs}) == 1
    first = _Batch(runs[:2], params, 2, standardize=True)
    second = _Batch(runs[2:], params, 2, standardize=True)
    second.program = first.program  # one program serves both
    for batch in (first, second):
        for place, (result, _) in batch.all().items():
            _check_same(result, _alone(batch.runs[place], params, standardize=True))


@pytest.mark.slow
def test_padding_lanes_change_nothing(x64, params, run):
    runs = [run(seed=seed, init="noise", precision="float64") for seed in range(3)]
    some, padded = _Batch(runs, params, 3).all(), _Batch(runs, params, 8).all()
    assert sorted(padded) == [0, 1, 2]
    for place in range(3):
        _check_same(padded[place][0], some[place][0])


@pytest.mark.slow
def test_the_loop_of_an_accelerator_gives_the_same(x64, params, run, monkeypatch):
    runs = [run(style_weight=weight, print_every=4, precision="float64", **ADAM) for weight in (1.0, 100.0)]
    plain = _Batch(runs, params, 2).all()
    monkeypatch.setattr(loop, "platform", lambda: "gpu")
    monkeypatch.setattr(loop, "ON_DEVICE", 3)
    seen = []
    looped = _Batch(runs, params, 2)
    assert looped.program.loops
    looped.all(callback=lambda records, kept: seen.append(records[0].step))
    assert seen == [0, 3, 4, 7, 8]
    for place, (result, terms) in looped.results.items():
        _check_same(result, plain[place][0])
        np.testing.assert_allclose(list(terms.values()), list(plain[place][1].values()), rtol=1e-8)


@pytest.mark.slow
def test_a_run_that_diverges_ends_alone(params, run, monkeypatch):
    wild = {"optimizer": "adam", "projection": "none", "steps": 6}
    runs = [run(learning_rate=rate, **wild) for rate in (0.01, 1e12, 0.02)]
    for loops in (False, True):
        if loops:
            monkeypatch.setattr(loop, "platform", lambda: "gpu")
            monkeypatch.setattr(loop, "ON_DEVICE", 4)
        found = _Batch(runs, params, 3).all()
        alone = _alone(runs[1], params)
        assert [found[place][0].stopped for place in range(3)] == ["", "diverged", ""]
        assert (found[1][0].bad_step, found[1][0].bad_term) == (alone.bad_step, alone.bad_term) == (1, "style")
        assert found[1][0].best_step == 0
        assert found[0][0].trace[-1]["step"] == 6


@pytest.mark.slow
def test_a_start_without_a_finite_loss_has_no_picture(params, run):
    runs = [
        run(style_weight=1e12, style_layers="relu1_1:1e12,relu2_1:1e12", content_weight=1e12, tv_weight=1e12),
        run(),
    ]
    runs[0] = runs[0]._replace(content=np.full_like(runs[0].content, np.nan))
    found = _Batch(runs, params, 2).all()
    result, terms = found[0]
    assert (result.image, result.best_step, result.stopped, result.bad_step) == (None, -1, "diverged", 0)
    assert found[1][0].stopped == ""


@pytest.mark.slow
@pytest.mark.parametrize("options", [ADAM, {"history": 3}], ids=["adam", "lbfgs"])
def test_what_was_kept_goes_on_to_the_same_picture_even_from_different_steps(params, run, options):
    runs = [run(style_weight=weight, steps=9, checkpoint_every=2, **options) for weight in (1.0, 50.0)]
    whole = _Batch(runs, params, 2).all()
    kept = {}

    def callback(records, fetch):
        for place, at in ((0, 4), (1, 6)):
            if records[place] and records[place].step == at:
                kept[place] = fetch(place)
        return len(kept) == 2

    stopped = _Batch(runs, params, 2)
    stopped.all(callback=callback)
    assert not stopped.ended
    assert stopped.results == {}
    assert [row["step"] for row in kept[1].snapshot.trace] == [0, 3, 6]
    assert kept[1].seconds > 0
    again = _Batch(runs, params, 2)
    again.all(kept=kept)
    for place in range(2):
        np.testing.assert_array_equal(again.results[place][0].image, whole[place][0].image)
        assert again.results[place][0].trace == whole[place][0].trace
        assert again.results[place][1] == whole[place][1]
        assert again.seconds[place] > kept[place].seconds


@pytest.mark.slow
def test_records_are_those_of_a_run_alone(params, run):
    seen = []
    one = run(**ADAM)
    _Batch([one], params, 1).all(
        callback=lambda records, kept: seen.append((records[0].step, records[0].terms, records[0].image()))
    )
    alone = []
    config = one.config
    task.stylize(
        one.key,
        params,
        one.content,
        one.styles,
        config,
        callback=lambda record: alone.append((record.step, record.terms, record.image())),
    )
    for (step, terms, image), (their_step, their_terms, their_image) in zip(seen, alone, strict=True):
        assert step == their_step
        np.testing.assert_allclose(list(terms.values()), list(their_terms.values()), rtol=1e-4)
        np.testing.assert_allclose(image, their_image, atol=1e-3)


@pytest.mark.slow
def test_a_line_search_runs_one_lane_a_device_without_vmap(params, run):
    one = run(line_search="zoom", steps=3)
    result, _ = _Batch([one], params, 1).all()[0]
    alone = _alone(one, params)
    np.testing.assert_allclose(result.trace[-1]["total"], alone.trace[-1]["total"], rtol=1e-3)
    # Under vmap a line search computes what it does not need: the program without is about the one alone.
    flops = lambda program: program.advance.cost_analysis()["flops"]  # noqa: E731
    wide = _Batch([one, one], params, 2).program
    assert flops(_Batch([one], params, 1).program) * 1.9 < flops(wide)


@pytest.mark.slow
def test_kernels_stay_ungrouped(params, run):
    """vmap over images with one network is one ordinary convolution with a larger batch, forward and backward."""
    text = _Batch([run(style_weight=w) for w in (1.0, 2.0)], params, 2).program.advance.as_text()
    groups = {
        line.split("feature_group_count=")[1].split(",")[0]
        for line in text.splitlines()
        if "feature_group_count" in line
    }
    assert groups <= {"1"}
    assert "convolution" in text or "conv" in text


@pytest.mark.slow
def test_targets_are_held_once(params, run, contents):
    runs = [run(style_weight=weight, content=content) for weight in (1.0, 2.0, 3.0) for content in (0, 1)]
    assert many.table_sizes(runs, lanes=6) == (2, 1)
    assert many.table_sizes(runs, lanes=1) == (1, 1)
    batch = _Batch(runs, params, 6)
    begun = many.begin(runs, params, **batch.arguments)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(begun.shared.content)} == {2}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(begun.shared.style)} == {1}
    assert begun.lanes.choice.content.tolist() == [0, 1, 0, 1, 0, 1]
    assert jnp.array_equal(begun.shared.params["conv1_1"]["kernel"], params["conv1_1"]["kernel"])
