"""The command for tests: as a process and in this one."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

import jnst
from jnst.cli import stylize
from jnst.config import StylizeConfig

ROOT = Path(jnst.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-P", "-m", "jnst.cli.stylize"]
SMALL = ["--size=16", "--steps=5", "--print_every=2", "--style_layers=relu1_1", "--content_layers=conv1_1"]
SMALL += ["--optimizer=adam", "--learning_rate=0.003"]  # small enough that every step is better than the one before
PICTURES = ["--content=photo.png", "--style=painting.png"]
ENDLESS = ["--steps=10000000", "--print_every=1"]
FIELDS = dataclasses.fields(StylizeConfig)


def run(*arguments, **options):
    """A real process, in the working folder."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, **options)


def start(*arguments, **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*COMMAND, *arguments], text=True, **streams)


def call(*arguments):
    """The same in this process, which has jax loaded already."""
    return stylize.main(["stylize", *arguments])


def read_until(stream, beginning):
    for line in stream:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"no line began with {beginning!r}")


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read_json(path):
    return json.loads(Path(path).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def assert_one_line(err, *words):
    assert err.startswith("jnst: "), err
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err, err


# ---- A run
