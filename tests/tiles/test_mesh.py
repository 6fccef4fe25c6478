"""Tiles on several devices, and on several processes' devices: on eight and four that a CPU is cut into."""

import contextlib
import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jnst import objective, tiles
from tiles.problem import SHALLOW, distance, make, whole

MOMENTS = dataclasses.replace(SHALLOW, style_loss="wasserstein", padding="reflect", pooling="max")
# Shape, longest side of a tile, spec. What eight devices divide evenly: both sides and the tiles; the columns alone;
# neither side, and there are fewer tiles.
CASES = {"rows": ((64, 56), 16, SHALLOW), "columns": ((70, 56), 16, SHALLOW), "neither": ((43, 91), 16, MOMENTS)}
ALONG = {"rows": 0, "columns": 1, "neither": None}
"""Which axis of the gradient is shared out."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mesh")


@pytest.fixture(scope="module")
def expected(folder):
    """Without tiles, on one device. Leaves in the folder what others need."""
    found = {}
    with jax.enable_x64(True):
        for name, (shape, tile, spec) in CASES.items():
            problem = make(shape, spec)
            found[name] = whole(problem)
            numbers = jax.tree.map(np.asarray, (problem[:-1], found[name].styles))
            (folder / name).write_bytes(pickle.dumps((type(problem)(*numbers[0], spec), tile, numbers[1])))
    return found


def _run(folder, cases, devices, processes):
    """Of each process, what it found."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(processes):
            cluster = [address, processes, number] if processes > 1 else None
            options = {"folder": str(folder), "cases": list(cases), "devices": devices, "cluster": cluster}
            command = [sys.executable, "-P", str(Path(__file__).with_name("mesh_process.py")), json.dumps(options)]
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            started.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in started:
            error = process.communicate(timeout=300)[1]
            assert process.returncode == 0, error
    return [pickle.loads((folder / f"found-{number}").read_bytes()) for number in range(processes)]


def _assert_right(parts, terms, expected, along):
    """All devices are there, each with the part that `spread` says."""
    for name, value in expected.terms.items():
        assert distance(terms[name], value) < 1e-12, name
    whole = np.asarray(expected.gradient)
    assert sorted(place for place, _, _ in parts) == list(range(len(parts)))
    for place, index, numbers in parts:
        part = [slice(0, length) for length in whole.shape]
        if along is not None:
            length = whole.shape[along] // len(parts)
            part[along] = slice(place * length, (place + 1) * length)
        assert [slice(*each.indices(n)[:2]) for each, n in zip(index, whole.shape, strict=True)] == part
        assert distance(numbers, whole[tuple(part)]) < 1e-12


def test_the_cases_leave_devices_without_a_tile():
    totals = [tiles.make_tiling(shape, objective.layers_of(spec), tile).total for shape, tile, spec in CASES.values()]
    assert totals == [16, 20, 6]


@pytest.mark.slow
def test_eight_devices_exchange_sums_alone_and_come_to_the_same(folder, expected):
    (found,) = _run(folder, CASES, devices=8, processes=1)
    for name, (terms, parts, words) in found.items():
        assert len(parts) == 8
        _assert_right(parts, terms, expected[name], ALONG[name])
        assert words["target"] == words["first"] == words["second"] == set()
        assert words["middle"] == {"all-reduce"}
        # A part of the total variation lies across the border of two parts of the image.
        assert words["last"] - {"collective-permute"} in ({"all-reduce"}, {"reduce-scatter"})


@pytest.mark.slow
def test_two_processes_come_to_the_same(folder, expected):
    """Of which each knows its own devices' parts of the gradient, and all of the terms."""
    names = ("columns", "neither")
    one, other = _run(folder, names, devices=2, processes=2)
    for name in names:
        (terms, parts, _), (others, more, _) = one[name], other[name]
        assert terms == others
        assert len(parts) == len(more) == 2
        _assert_right(parts + more, terms, expected[name], ALONG[name])
