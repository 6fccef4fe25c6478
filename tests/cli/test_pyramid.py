"""`--scales`, `--tile` and what came with them, as commands."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.command import PICTURES, SMALL, assert_one_line, call, listed, read_json
from jnst.cli import checkpoint

RUN = [*PICTURES, *SMALL, "--size=24", "--scales=12:3,17", "--steps=4", "--tile=16", "--checkpoint_every=2"]


@pytest.mark.slow
def test_the_scales_are_said_and_the_picture_has_its_size(here, capsys):
    assert call(*RUN, "--output=o.png") == 0
    out = capsys.readouterr().out
    width, height = Image.open("o.png").size
    assert max(width, height) == 24
    said = next(line for line in out.splitlines() if line.startswith("scales: "))
    assert said.startswith("scales: 12x") or "x12 (3)" in said
    assert said.endswith("(4) steps")
    assert "tiles: " in out
    assert "step 11/11 " in out
    assert [row["size"] for row in read_json("o.json")["trace"]] == [12, 12, 12, 17, 17, 17, 17, 24, 24, 24, 24]


@pytest.mark.slow
def test_it_goes_on_from_every_checkpoint_to_the_same_bytes(here, monkeypatch):
    assert call(*RUN, "--output=whole.png") == 0
    write = checkpoint.write
    for stop in range(2, 11, 2):

        def dying(output, snapshot, facts, stop=stop):
            write(output, snapshot, facts)
            if facts["step"] == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "write", dying)
        name = f"part{stop}.png"
        assert call(*RUN, f"--output={name}") == 130
        monkeypatch.setattr(checkpoint, "write", write)
        assert call(*RUN, f"--output={name}", "--resume") == 0
        assert Path(name).read_bytes() == Path("whole.png").read_bytes()
        assert read_json(Path(name).with_suffix(".json"))["trace"] == read_json("whole.json")["trace"]


@pytest.mark.slow
def test_steps_cannot_grow_below_a_larger_size(here, capsys):
    assert call(*RUN, "--output=o.png") == 0
    capsys.readouterr()
    assert call(*RUN, "--steps=9", "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "--steps=9", "--steps=4")
    assert call(*RUN, "--output=o.png", "--resume") == 0
    assert capsys.readouterr().out == "o.png: finished already, at step 11\n"


@pytest.mark.slow
def test_an_average_is_said_to_be_one(here, capsys):
    assert call(*PICTURES, *SMALL, "--average_decay=0.5", "--rounding=down", "--output=o.png") == 0
    assert "the average of the iterates up to step 5" in capsys.readouterr().out
    assert call(*PICTURES, *SMALL, "--output=p.png") == 0
    one, other = (np.asarray(Image.open(name), int) for name in ("o.png", "p.png"))
    assert np.abs(one - other).max() > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--scales=3x"], ["--scales=3x", "auto, all"]),
        (["--scales=16,12"], ["--scales=16,12", "growing sizes"]),
        (["--scales=12,48"], ["--scales=12,48", "48 is larger"]),
        (["--scales=12:0,16"], ["--scales=12:0,16"]),
        (["--tile=7"], ["--tile=7", "16 to 65535"]),
        (["--tile=big"], ["--tile=big", "auto"]),
        (["--tile=16", "--optimizer=lbfgs", "--learning_rate=0", "--line_search=zoom"], ["--tile=16", "line search"]),
        (["--beta2=0.9", "--optimizer=sgd"], ["--beta2=0.9", "--optimizer=sgd"]),
        (["--average_decay=1"], ["--average_decay=1"]),
        (["--style_loss=mean"], ["--style_loss=mean", "gram, wasserstein"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_what_is_wrong_is_one_line(here, capsys, flags, words):
    assert call(*PICTURES, *SMALL, *flags, "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert "o.png" not in listed(here)


def test_too_little_memory_is_said_before_any_work(here, capsys, monkeypatch):
    from jnst import memory

    monkeypatch.setattr(memory, "available", lambda devices: 1000)
    assert call(*PICTURES, *SMALL, "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "--size", "GiB are free", "smaller --size")
    assert not [name for name in listed(here) if name.startswith("o.")]


@pytest.mark.slow
def test_dry_run_names_the_scales_and_the_tiles(here, capsys):
    assert call(*RUN, "--output=o.png", "--dry_run") == 0
    out = capsys.readouterr().out
    assert "by way of" in out
    assert "tiles: " in out
    assert "for 11 steps" in out
    assert "o.png" not in listed(here)


@pytest.mark.parametrize("wrong", [{"plan": ["x"]}, {"plan": 3}, {"plan": [16, -1]}, {"scale": "a"}, {"scale": -1}])
def test_a_checkpoint_with_a_plan_that_is_none_is_damaged(here, capsys, wrong):
    assert call(*PICTURES, *SMALL, "--checkpoint_every=2", "--output=o.png") == 0
    found = checkpoint.read("o.png")
    leaves = [*found.snapshot.leaves]
    checkpoint.write("o.png", found.snapshot._replace(leaves=leaves), {**found.facts, **wrong})
    capsys.readouterr()
    assert call(*PICTURES, *SMALL, "--steps=9", "--checkpoint_every=2", "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "o.ckpt", "not a whole checkpoint")
