"""bin/bench: flags, workers and their turns, what is printed; both sides' numbers against the float64 reference."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import reference

from benchmarks import bench, peers, step, time_to_loss, workers
from jnst.config import ObjectiveSpec, StylizeConfig, parse_layers
from jnst.errors import InputError
from jnst.types import Weights

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed (bin/bench makes an environment with it)",
)

# Plays every side, each in a process of its own: notes whose turn it is, and answers what the test says.
FAKE = """\
import json, os, sys
from pathlib import Path
import numpy as np
from benchmarks import workers

script, side, folder = sys.argv
state = Path(script).parent
said = json.loads((state / "said.json").read_text())
layout = side.partition(":")[2]

def note(what):
    with open(state / "turns", "a") as file:
        file.write(f"{side} {what}\\n")

def step(tell, untimed=0, calls=1):
    note(f"{untimed}+{calls}")
    return {"seconds": said["seconds"][side]}

def compile(tell):
    note("compile")
    return {"seconds": 3.0 if side == "step" else 1.0}

def check(tell):
    np.save(Path(folder, f"{layout or 'ours'}.npy"), np.ones(3) * said.get(layout, 1))
    return {"loss": said.get("loss", {}).get(side, 2.0)}

def minimize(tell, evals):
    note(f"minimize {evals}")
    tell({"done": 1, "seconds": 1.0, "text": "half"})
    return {"trace": [[n + 1, 1.0 + n, said["losses"][n % len(said["losses"])]] for n in range(evals)]}

def run(tell, goal):
    note(f"run {goal}")
    trace = [[1, 0.5, 9.0], [2, 1.5, 2.0]]
    reached = goal >= 2
    return {"reached": reached, "seconds": 1.5, "steps": 1, "stopped": "", "trace": trace}

sys.exit(workers.serve(lambda: {
    "step": step, "compile": compile, "check": check, "minimize": minimize, "run": run,
    "begin": lambda tell: {"loss": 2.0, "size": [16, 12]},
    "prepare": lambda tell: {"compile_s": 4.0},
}))
"""
STEP_KEYS = (
    "benchmark size batch pooling network ours_s torch_s ratio torch_variant torch_contiguous_s torch_channels_last_s "
    "rounds compile_s compile_cached_s gradient_difference loss_difference threads device versions commit"
)
TIME_KEYS = (
    "benchmark size evals goal torch_s ours_s ratio ours_steps ours_compile_s ratio_with_compile torch_variant reached "
    "flags weights trace_torch trace_ours threads device versions commit"
)


class Fake:
    """A command with workers that only play their parts."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.script = folder / "fake.py"
        self.script.write_text(FAKE)
        self.say(seconds={"step": 0.2, "torch:contiguous": 0.4, "torch:channels_last": 0.6}, losses=[8.0, 3.0, 5.0])
        monkeypatch.setattr(bench, "_COMMAND", [sys.executable, str(self.script)])
        monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setitem(workers._INHERITED, "PYTHONPATH", str(workers.ROOT))

    def say(self, **said):
        path = self.folder / "said.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | said))

    def turns(self):
        return [tuple(line.split(" ", 1)) for line in (self.folder / "turns").read_text().splitlines()]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    return Fake(tmp_path, monkeypatch)


@pytest.fixture
def short_waits(monkeypatch):
    """Before torch is loaded in this process: its threads, waiting for each other, are in the way of other tests."""
    monkeypatch.setenv("GOMP_SPINCOUNT", workers._ENVIRONMENT["GOMP_SPINCOUNT"])


@pytest.fixture
def cache_as_before():
    """jnst's side turns the compilation cache off, which in its own process is nobody else's business."""
    import jax

    before = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", before)


def run(*arguments):
    return bench.main(["bench", *arguments])


# Flags


@pytest.mark.parametrize("arguments", [[], ["--help"], ["step", "--help"], ["time_to_loss", "--help"], ["--version"]])
def test_help_needs_neither_jax_nor_torch(arguments):
    code = f"""if True:
        import sys
        from benchmarks import bench
        status = bench.main(["bench", *{arguments}])
        sys.exit(status or bool({{"jax", "torch", "optax"}} & set(sys.modules)))
    """
    environ = {**workers._INHERITED, "PYTHONPATH": str(workers.ROOT)}
    shown = subprocess.check_output([sys.executable, "-P", "-c", code], text=True, timeout=60, env=environ)
    assert "bench" in shown or "jnst" in shown
    if arguments[1:] == ["--help"]:
        config = {"step": step, "time_to_loss": time_to_loss}[arguments[0]].Config
        assert all(f"--{field.name} (default" in shown for field in dataclasses.fields(config))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stepp"], ["'stepp'", "step, time_to_loss"]),
        (["--size=64", "step"], ["'--size=64'", "step, time_to_loss"]),
        (["step", "--size=abc"], ["--size=abc", "a whole number"]),
        (["step", "--size=8"], ["--size=8", "not below 16"]),
        (["step", "--batch=0"], ["--batch=0", "not below 1"]),
        (["step", "--rounds=0"], ["--rounds=0", "not below 1"]),
        (["step", "--pooling=l2"], ["--pooling=l2", "one of avg, max"]),
        (["step", "--network=vgg16"], ["--network=vgg16", "one of vgg19, mini"]),
        (["step", "--evals=5"], ["evals"]),
        (["step", "512"], ["'512'", "flags only"]),
        (["time_to_loss", "--evals=0"], ["--evals=0", "not below 1"]),
        (["time_to_loss", "--init=mix"], ["--init=mix", "one of noise, content"]),
        (["time_to_loss", "--weights=mini", "--ours=--history=0"], ["--ours=--history=0", "not below 1"]),
        (["time_to_loss", "--weights=mini", "--ours=--historie=9"], ["--ours=--historie=9", "historie"]),
        (["time_to_loss", "--weights=mini", "--ours=--pooling=avg"], ["--ours=--pooling=avg", "both sides"]),
        (["time_to_loss", "--weights=mini", "--ours='"], ["--ours='", "quotation"]),
        (["time_to_loss", "--weights=nowhere.npz"], ["--weights=nowhere.npz", "no such file"]),
        (["time_to_loss", "--weights=random"], ["--weights=random", "a trained network"]),
    ],
)
def test_bad_flags_are_one_line(fake, capsys, arguments, words):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "is not in a folder shared" not in line]
    assert (out, len(lines)) == ("", 1), err
    assert all(word in lines[0] for word in ["jnst: ", *words]), err


@pytest.mark.parametrize("command", ["step", "time_to_loss"])  # the others need none
def test_without_torch_the_extra_is_named(monkeypatch, capsys, command):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert run(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'jnst[bench]'" in line


# Workers


def worker(tmp_path, monkeypatch, code):
    """A worker that is as many lines of Python."""
    script = tmp_path / "worker.py"
    script.write_text("import os, signal, sys, time\nfrom benchmarks import workers\n" + code)
    monkeypatch.setitem(workers._INHERITED, "PYTHONPATH", str(workers.ROOT))
    return workers.Worker("a side", [sys.executable, str(script)])


def test_a_worker_answers_and_says_something_on_the_way(tmp_path, monkeypatch):
    code = """
def add(tell, a, b):
    print("noise", flush=True)
    os.system("echo more noise")
    tell({"half": a})
    return {"sum": a + b, "spin": os.environ["GOMP_SPINCOUNT"], "pages": os.environ["GLIBC_TUNABLES"],
            "platform": os.environ["JAX_PLATFORMS"]}
workers.serve(lambda: {"add": add, "nothing": lambda tell: None})
"""
    monkeypatch.setitem(workers._INHERITED, "GLIBC_TUNABLES", "the user's")
    seen = []
    with worker(tmp_path, monkeypatch, code) as side:
        answer = side.ask("add", a=2, b=3, progress=seen.append)
        assert answer == {"sum": 5, "spin": "2000", "pages": "the user's", "platform": "cpu"}
        assert side.ask("nothing") == {}
    assert seen == [{"half": 2}]
    assert side.process.returncode is not None


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("sys.exit(7)", workers.FailedError, "a side: the process ended early \\(exit status 7\\)"),
        ("os.kill(os.getpid(), 9)", workers.FailedError, "killed by SIGKILL; is there enough memory"),
        ("def f(): raise MemoryError('much')\nworkers.serve(f)", workers.FailedError, "a side: MemoryError: much"),
        (
            "def f(): raise workers.InputError('--size: no')\nsys.exit(workers.serve(f))",
            InputError,
            "^--size: no$",
        ),
        (
            "workers.serve(lambda: {'f': lambda tell: os.kill(os.getpid(), 15)})",
            workers.FailedError,
            "killed by SIGTERM",
        ),
    ],
)
def test_a_worker_that_fails_says_how(tmp_path, monkeypatch, code, error, words):
    def use():
        with worker(tmp_path, monkeypatch, code) as side:
            side.ask("f")

    with pytest.raises(error, match=words):
        use()


def test_a_worker_ends_with_its_parent_whatever_it_does(tmp_path, monkeypatch):
    code = "workers.serve(lambda: {'sleep': lambda tell: time.sleep(60)})"
    with worker(tmp_path, monkeypatch, code) as side:
        side.process.stdin.write('{"do": "sleep"}\n')
        side.process.stdin.flush()
    assert side.process.returncode == -9


@pytest.mark.slow
def test_turns_rotate_and_begin_with_a_step_that_is_not_timed(fake):
    command = [sys.executable, str(fake.script)]
    fake.say(seconds={"a": 0.01, "b": 0.2, "c": 30.0})
    with (
        workers.Worker("a", [*command, "a", "."]) as a,
        workers.Worker("b", [*command, "b", "."]) as b,
        workers.Worker("c", [*command, "c", "."]) as c,
    ):
        found = workers.interleave({"a": a, "b": b, "c": c}, 4)
    assert found == {"a": [0.01] * 4, "b": [0.2] * 4, "c": [30.0] * 4}
    turns = fake.turns()
    assert turns[:3] == [("a", "1+1"), ("b", "1+1"), ("c", "1+1")]
    assert "".join(name for name, _ in turns[3:]) == "abcbcacababc"
    assert {*turns[3:]} == {("a", "1+20"), ("b", "1+3"), ("c", "1+1")}


def test_timed_counts_only_what_is_timed(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(workers.time, "perf_counter", lambda: next(clock))
    calls = []
    assert workers.timed(lambda: calls.append(0), untimed=2, calls=3) == {"seconds": 2.0}
    assert len(calls) == 5


def test_patience_says_what_is_left(capsys):
    say = workers.Patience("painting", 10, every=0)
    say({"done": 4, "seconds": 8.0, "text": "loss 5"})
    workers.Patience("painting", 10)({"done": 4, "seconds": 8.0, "text": "loss 5"})  # too soon
    assert capsys.readouterr().err == "jnst: painting: 4 of 10, loss 5, 8 s, 12 s left\n"


# What is printed


@pytest.mark.slow
def test_step_prints_a_table_and_a_line_of_json(fake, capsys):
    assert run("step", "--size=16", "--rounds=3", "--network=mini") == 0
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])
    assert list(found) == STEP_KEYS.split()
    expected = {"ours_s": 0.2, "torch_s": 0.4, "ratio": 0.5, "torch_variant": "contiguous"}
    expected |= {"torch_contiguous_s": 0.4, "torch_channels_last_s": 0.6, "compile_s": 3.0, "compile_cached_s": 1.0}
    expected |= {"size": 16, "batch": 1, "pooling": "avg", "network": "mini", "rounds": 3, "gradient_difference": 0}
    assert expected.items() <= found.items()
    assert {"python", "jnst", "jax", "torch"} <= found["versions"].keys()
    assert found["threads"] >= 1
    assert any(line.startswith("jnst / torch") and "0.500" in line for line in out)
    assert fake.turns()[:3] == [("step", "compile"), ("step:cached", "compile"), ("step:cached", "compile")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"contiguous": 1.5}, "gradient 0.5"),
        ({"loss": {"torch:channels_last": 3.0}}, "loss 0.5"),
        ({"contiguous": "nan"}, "nan"),
    ],
)
def test_step_of_something_else_is_no_measurement(fake, capsys, said, words):
    fake.say(**{name: float(value) if value == "nan" else value for name, value in said.items()})
    assert run("step", "--size=16", "--network=mini") == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    assert "computes something else" in line
    assert words in line


def time_to(*arguments):
    return run("time_to_loss", "--weights=mini", "--content=harbor", "--style=strokes", "--size=16", *arguments)


@pytest.mark.slow
def test_time_to_loss_prints_a_table_and_a_line_of_json(fake, capsys):
    assert time_to("--evals=3", "--ours=--history=7 --projection=none") == 0
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert set(TIME_KEYS.split()) <= found.keys()
    expected = {"goal": 3.0, "goal_evals": 2, "goal_s": 2.0, "torch_s": 3.0, "ours_s": 1.5, "ratio": 0.5, "evals": 3}
    expected |= {"ours_steps": 1, "ours_compile_s": 4.0, "reached": True, "torch_variant": "contiguous"}
    expected |= {"size": [16, 12], "init": "noise", "weights": "mini", "content": "harbor", "style": "strokes"}
    expected |= {"content_layers": ["relu4_2"], "style_layers": list(time_to_loss.STYLE_LAYERS)}
    assert expected.items() <= found.items()
    assert found["ratio_with_compile"] == pytest.approx(5.5 / 3)
    assert found["trace_torch"] == [[1, 1.0, 8.0], [2, 2.0, 3.0], [3, 3.0, 5.0]]
    assert (
        found["flags"].split() == "--steps=6 --history=7 --init=noise --noise_width=0.001732 --projection=none".split()
    )
    assert err == ""
    assert ("torch:contiguous", "minimize 3") in fake.turns()
    assert fake.turns()[-1] == ("time_to_loss", "run 3.0")


@pytest.mark.slow
def test_a_goal_that_is_not_reached_has_no_ratio(fake, capsys):
    fake.say(losses=[8.0, 1.0])
    assert time_to("--evals=3") == 0
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])
    assert (found["reached"], found["ratio"], found["ratio_with_compile"]) == (False, None, None)
    assert "not come to the goal" in out[-2]


@pytest.mark.slow
def test_time_to_another_loss_is_no_measurement(fake, capsys):
    fake.say(loss={"torch:channels_last": 2.1})
    assert time_to("--evals=3") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "PyTorch (channels_last) computes something else" in line


def test_what_is_not_beside_the_checkout_is_said(tmp_path, monkeypatch, capsys):
    content = tmp_path / "a.jpg"
    content.touch()
    monkeypatch.setattr(
        time_to_loss,
        "DEFAULTS",
        {"weights": (tmp_path / "w.npz", "mini"), "content": (content, "harbor"), "style": (tmp_path / "s", "strokes")},
    )
    config = time_to_loss._shared(time_to_loss.Config())
    assert (config.weights, config.content, config.style) == ("mini", str(content), "strokes")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "w.npz" in lines[0]
    assert lines[0].endswith("--weights=mini")
    time_to_loss._shared(time_to_loss.Config(weights="mini", style="strokes"))
    assert capsys.readouterr().err == ""


def test_layers_are_those_that_the_weights_have(shared):
    content, style = time_to_loss._layers(str(shared / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz"))
    assert (content, style) == ("relu3_2", ["relu1_1", "relu2_1", "relu3_1"])


def test_points_of_a_trace():
    trace = [[n] for n in range(500)]
    assert len(time_to_loss._points(trace)) == 10
    assert time_to_loss._points(trace)[0] == [0]
    assert time_to_loss._points(trace)[-1] == [499]
    assert time_to_loss._points(trace[:3]) == trace[:3]
    assert time_to_loss._points([]) == []


# What the sides compute


def write_step(folder, **chosen):
    step._write(folder, step.Config(**{"size": 16, "network": "mini", **chosen}))
    return folder


def expected_loss(folder):
    """The reference's, of the task's pictures together."""
    task, arrays = peers.read(folder)
    (content_layers, content), (style_layers, style) = (
        parse_layers(name, task[name]) for name in ("content_layers", "style_layers")
    )
    spec = ObjectiveSpec(
        content_layers=content_layers,
        style_layers=style_layers,
        pooling=task["pooling"],
        padding=task["padding"],
        normalization="neural_style",
        tv="l1",
    )
    weights = Weights(*(task[name] for name in ("content_weight", "style_weight", "tv_weight")), content, style)
    pictures = zip(*(arrays[name].reshape(-1, *arrays[name].shape[-3:]) for name in ("image", "content")), strict=True)
    params = peers.params_of(arrays)
    terms = [reference.objective(params, *pair, [arrays["style"]], [1.0], weights, spec) for pair in pictures]
    return sum(sum(each.values()) for each in terms)


def task_of_time(folder, monkeypatch):
    """jnst's side of time_to_loss after `begin`, and what it answered."""
    config = time_to_loss.Config(size=32, evals=4, weights="mini", content="harbor", style="strokes", init="content")
    shared = time_to_loss._shared(config)
    configs = [dataclasses.asdict(each) for each in (shared, time_to_loss._ours(config, shared))]
    (folder / "configs.json").write_text(json.dumps(configs))
    side = time_to_loss._Side(folder)
    return side, side.begin(None)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_jnst_s_side_of_step_computes_the_objective(tmp_path, cache_as_before, batch):
    write_step(tmp_path, batch=batch)
    side = step._Side(tmp_path)
    assert side.compile(None)["seconds"] > 0
    assert side.check(None)["loss"] == pytest.approx(expected_loss(tmp_path), rel=1e-4)
    assert np.load(tmp_path / "ours.npy").shape == (batch, 16, 16, 3)
    assert side.step(None, untimed=1, calls=2)["seconds"] > 0


@pytest.mark.slow
def test_jnst_s_side_of_time_to_loss_runs_until_the_goal(tmp_path, monkeypatch, cache_as_before):
    side, begun = task_of_time(tmp_path, monkeypatch)
    width, height = begun["size"]
    assert max(begun["size"]) == 32
    assert peers.read(tmp_path)[1]["image"].shape == (height, width, 3)
    assert begun["loss"] == pytest.approx(expected_loss(tmp_path), rel=1e-4)
    assert side.prepare(None)["compile_s"] > 0
    found = side.run([].append, goal=begun["loss"] * 2)
    assert (found["reached"], found["steps"]) == (True, 0)
    assert found["trace"][0][2] == pytest.approx(begun["loss"], rel=1e-4)
    side.prepare(None)
    found = side.run([].append, goal=0.0)
    assert (found["reached"], found["steps"]) == (False, 8)
    assert [row[0] for row in found["trace"]] == list(range(1, 10))


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("layout", peers.LAYOUTS)
@pytest.mark.parametrize("chosen", [{"batch": 2}, {"pooling": "max"}])
def test_torch_s_side_of_step_computes_the_objective(tmp_path, short_waits, layout, chosen):
    write_step(tmp_path, **chosen)
    side = peers._Side(tmp_path, layout)
    assert side.check(None)["loss"] == pytest.approx(expected_loss(tmp_path), rel=1e-4)
    gradient = np.load(tmp_path / f"{layout}.npy")
    assert gradient.shape == (chosen.get("batch", 1), 16, 16, 3)
    assert side.step(None, untimed=1, calls=2)["seconds"] > 0


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("layout", peers.LAYOUTS)
def test_torch_s_side_of_time_to_loss_goes_down(tmp_path, monkeypatch, short_waits, cache_as_before, layout):
    _, begun = task_of_time(tmp_path, monkeypatch)
    side = peers._Side(tmp_path, layout)
    assert side.check(None)["loss"] == pytest.approx(begun["loss"], rel=1e-4)
    trace = side.minimize([].append, evals=20)["trace"]
    assert [row[0] for row in trace] == list(range(1, 21))
    assert trace[0][2] == pytest.approx(begun["loss"], rel=1e-4)
    assert trace[-1][2] < trace[0][2] / 2


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["step", "--network=mini", "--rounds=2"], ["time_to_loss", "--evals=4"]])
def test_both_sides_from_flags_to_json(arguments, monkeypatch, capfd):
    monkeypatch.setitem(workers._INHERITED, "PYTHONPATH", str(workers.ROOT))
    if arguments[0] == "time_to_loss":
        arguments = [*arguments, "--weights=mini", "--content=harbor", "--style=strokes"]
    assert run(*arguments, "--size=32") == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["benchmark"] == arguments[0]
    assert set((STEP_KEYS if arguments[0] == "step" else TIME_KEYS).split()) <= found.keys()


def test_ours_has_the_defaults_of_stylize_but_for_what_is_shared():
    config = time_to_loss.Config(weights="mini", content="harbor", style="strokes", init="content", evals=50)
    ours = time_to_loss._ours(config, time_to_loss._shared(config))
    changed = {
        name
        for name, value in dataclasses.asdict(ours).items()
        if value != getattr(StylizeConfig(), name) and name not in time_to_loss.FIXED
    }
    assert changed == {"print_every", "projection"}  # of the steps, 2 * 50 are the default
