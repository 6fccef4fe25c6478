"""`weights` as its user sees it, and what `--weights=vgg19` does in a run."""

import contextlib
import fcntl
import hashlib
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
import time

import h5py
import numpy as np
import pytest
import safetensors.numpy
from downloads import (
    FILE,
    NOBODY,
    PATIENCE,
    Server,
    alone,
    answer,
    checkout,
    chunked,
    keras_bytes,
    params,
    record,
    silence,
    start,
)
from PIL import Image
from weights.checks import assert_equal_params

import jnst
from cli.command import PICTURES, ROOT, SMALL, assert_one_line, listed, read_json, read_until
from cli.command import call as stylize
from jnst import bundled, weights
from jnst.cli import download
from jnst.cli import weights as command
from jnst.weights import fetch
from jnst.weights.canonical import read_facts

DATA = keras_bytes(3_000_000)
OK = answer(DATA)
STALL = answer(DATA[:1_000_000], claim=len(DATA), hold=True)
REAL = fetch.DOWNLOADS["vgg19"]
LAYERS = ("conv1_1", "conv1_2", "conv2_1")


def call(*arguments):
    return command.main(["weights", *arguments])


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:
        yield lambda *script: stack.enter_context(Server(*script))


@pytest.fixture
def cache(here, tmp_path_factory, monkeypatch):
    """The folder of fetched and converted weights, which is not there yet; `here` is the working folder."""
    folder = tmp_path_factory.mktemp("cache")
    alone(monkeypatch, folder)
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(fetch, "SILENT_SECONDS", 0.2)
    return folder / "weights"


@pytest.fixture
def online(cache, serve, monkeypatch):
    """A server that has the small file that `vgg19` means."""
    server = serve(OK)
    monkeypatch.setitem(fetch.DOWNLOADS, "vgg19", record(DATA, server.url + FILE))
    return server


def network(name="net.npz", *, widths=(4, 5, 6), seed=0):
    """A file with the first layers of some VGG-19 in the working folder, as Keras names them; canonical by its ending.

    Returns:
        The arrays by name.
    """
    rng, arrays, channels = np.random.default_rng(seed), {}, 3
    for layer, width in zip(LAYERS, widths, strict=False):
        arrays[f"block{layer[4]}_conv{layer[6]}/kernel"] = rng.normal(size=(3, 3, channels, width)).astype(np.float32)
        arrays[f"block{layer[4]}_conv{layer[6]}/bias"] = rng.normal(size=width).astype(np.float32)
        channels = width
    np.savez(name, **arrays)
    if not name.endswith(".npz"):
        os.replace(f"{name}.npz", name)
    return arrays


def canonical(name, kernel=None):
    """A canonical file with one layer in the working folder."""
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 5)) if kernel is None else kernel
    layer = {"kernel": np.float32(kernel), "bias": np.zeros(kernel.shape[3], np.float32)}
    weights.save_safetensors(name, {"mean": np.float32([0.5, 0.25, 0.125]), "conv1_1": layer})


def contents(folder):
    return {name: (folder / name).read_bytes() for name in listed(folder)}


# ---- fetch


def test_fetch_says_how_large_how_far_and_what_now(cache, here, online, capsys):
    before, inside = listed(here), checkout()
    assert call("fetch", "vgg19") == 0
    out, err = capsys.readouterr()
    first, *lines, place, sha, use = out.splitlines()
    assert err == ""
    assert first == f"vgg19 is not here: fetch 3 MiB from {online.url}{FILE}"
    shown = [re.fullmatch(r"  (\d+)% of 3 MiB, \d+ s left", line) for line in lines]
    assert all(shown), lines
    assert [int(line[1]) for line in shown] == list(range(10, 101, 10))
    assert place == f"{cache / FILE}: fetched, md5:{hashlib.md5(DATA).hexdigest()} is right"
    assert sha == f"SHA-256 {hashlib.sha256(DATA).hexdigest()}"
    assert "--weights=vgg19" in use
    assert contents(cache.parent) == {f"weights/{FILE}": DATA}
    assert (listed(here), checkout()) == (before, inside)

    assert call("fetch", "vgg19") == 0
    assert capsys.readouterr().out.splitlines() == [place.replace(": fetched", ": was here"), sha, use]
    assert online.requests == [f"GET /{FILE}"]


def test_fetch_takes_another_address(cache, online, serve, capsys):
    other = serve(OK)
    assert call("fetch", "vgg19", f"--url={other.url}x.h5") == 0
    assert (online.requests, other.requests) == ([], ["GET /x.h5"])
    assert f"{other.url}x.h5" in capsys.readouterr().out


def test_another_try_is_announced_for_what_it_is(cache, online, capsys):
    online.script = (answer(status=503), OK)
    assert call("fetch", "vgg19") == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("vgg19 is not here"))
    assert second.startswith(first)
    assert "try 2 of 3" in second
    assert "broke off" not in second  # it did not


def test_small_pieces_do_not_run_ahead_of_the_download(cache, online, capsys):
    online.script = (chunked(DATA, 10_000),)
    assert call("fetch", "vgg19") == 0
    assert "100% of 3 MiB, 0 s left" in capsys.readouterr().out


def test_time_left_follows_from_the_time_spent(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(download.time, "monotonic", lambda: now[0])
    bar = download.Bar(REAL, "https://files.invalid/a.h5", 1)
    now[0] += 30
    bar.update(REAL.size // 4)
    bar.update(1)
    now[0] += 30
    bar.update(REAL.size // 4)
    bar.close()
    assert capsys.readouterr().out.splitlines() == [
        "vgg19 is not here: fetch 76 MiB from https://files.invalid/a.h5",
        "  20% of 76 MiB, 90 s left",
        "  50% of 76 MiB, 60 s left",
    ]


def terminal(download, *words, size=(24, 120)):
    """What a command shows on a terminal, its exit code first."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    child = start(download, *words, stdout=slave, stderr=slave)
    os.close(slave)
    shown, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            data = os.read(master, 4096)
        except OSError:  # the child has gone
            break
        if not data:
            break
        shown += data
    os.close(master)
    return child.wait(PATIENCE), shown.decode()


@pytest.mark.parametrize("size", [(24, 120), (0, 0)])
def test_a_terminal_shows_a_bar(cache, online, size):
    code, text = terminal(record(DATA, online.url + FILE), "weights", "fetch", "vgg19", size=size)
    assert code == 0
    assert "fetch 3 MiB from" in text
    assert "100%|" in text
    assert re.search(r"\| [\d.]+M/3\.\d+M [\d.?]+[kMG]?B/s [\d:?]+ left", text), text
    assert "% of 3 MiB" not in text
    assert contents(cache) == {FILE: DATA}


@pytest.mark.slow
def test_a_bar_that_ends_early_leaves_the_message_a_line_of_its_own(cache, online):
    online.script = (answer(DATA[:1_000_000], claim=len(DATA)), answer(status=404))
    code, text = terminal(record(DATA, online.url + FILE), "weights", "fetch", "vgg19")
    assert code == 2
    assert re.search(r"\b3\d%\|", text), text
    assert text.splitlines()[-1].startswith(f"jnst: vgg19: cannot be fetched from {online.url}{FILE}: the server")
    assert "100%" not in text


# Answers to the real download, and what is said.
TROUBLE = {
    "not there": (answer(b"no", 404), "the server answers 404", 1),
    "error": (answer(b"oops", 500), "the server answers 500", 3),
    "wrong bytes": (answer(bytes(10_000)), f"expected {REAL.hash}", 1),
    "cut off": (answer(bytes(200_000), claim=REAL.size), "broke off", 3),
    "silent": (silence, "no answer in time", 1),
    "silent in the middle": (answer(bytes(200_000), claim=REAL.size, hold=True), "fell silent", 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TROUBLE)
def test_trouble_with_the_download_is_one_line(cache, here, serve, monkeypatch, capsys, case):
    script, cause, count = TROUBLE[case]
    server, before = serve(script), listed(here)
    monkeypatch.setenv("JNST_MIRROR", server.url + "mirror/")
    place, address = cache / REAL.file, f"{server.url}mirror/{REAL.file}"
    for work in (lambda: call("fetch", "vgg19"), lambda: call("inspect", "vgg19")):
        server.requests.clear()
        assert work() == 2
        out, err = capsys.readouterr()
        assert_one_line(err, "vgg19", address, cause, f"put the file at {place}", "--weights", "random")
        assert out.startswith(f"vgg19 is not here: fetch 76 MiB from {address}\n")
        assert server.requests == [f"GET /mirror/{REAL.file}"] * count
    assert listed(cache.parent) == []
    assert listed(here) == before


@pytest.mark.slow
def test_wrong_bytes_of_the_right_length_are_refused(cache, serve, monkeypatch, capsys):
    server = serve(answer(bytes(REAL.size)))
    assert call("fetch", "vgg19", f"--url={server.url}") == 2
    assert_one_line(capsys.readouterr().err, f"expected {REAL.hash}", str(cache / REAL.file))
    assert (listed(cache), len(server.requests)) == ([], 1)


@pytest.mark.parametrize("case", ["not there", "wrong bytes"])
def test_trouble_with_the_download_is_one_line_of_a_real_process_too(cache, serve, case):
    script, cause, count = TROUBLE[case]
    server = serve(script)
    child = start(REAL, "weights", "fetch", "vgg19", f"--url={server.url}a.h5")
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 2
    assert_one_line(err, f"{server.url}a.h5", cause, str(cache / REAL.file), "random")
    assert len(server.requests) == count
    assert listed(cache) == []


def test_no_network_is_said_at_once(cache, monkeypatch, capsys):
    monkeypatch.setenv("HTTPS_PROXY", NOBODY)
    assert call("fetch", "vgg19") == 2
    assert_one_line(capsys.readouterr().err, REAL.url, "the proxy does not answer", str(cache / REAL.file), "random")


def test_ctrl_c_ends_a_download_quietly(cache, online):
    online.script = (STALL, OK)
    download = record(DATA, online.url + FILE)
    child = start(download, "weights", "fetch", "vgg19")
    read_until(child.stdout, "  30%")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (130, "jnst: interrupted; nothing written\n")
    assert listed(cache) == []
    assert call("fetch", "vgg19") == 0
    assert contents(cache) == {FILE: DATA}


def test_reader_that_goes_away_costs_no_download(cache, online):
    gate = []

    def slowly(handler):
        while not gate and not handler.server.owner.over.wait(0.02):
            pass
        OK(handler)

    online.script = (slowly,)
    child = start(record(DATA, online.url + FILE), "weights", "fetch", "vgg19")
    read_until(child.stdout, "vgg19 is not here")
    child.stdout.close()
    gate.append(True)
    assert child.wait(PATIENCE) == 0
    assert child.stderr.read() == ""
    assert contents(cache) == {FILE: DATA}


# ---- A run with vgg19


@pytest.mark.slow
def test_a_run_fetches_once_and_records_what_it_took(cache, here, online, capsys, tmp_path_factory, monkeypatch):
    assert stylize(*PICTURES, *SMALL, "--weights=vgg19", "--output=o.png") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"\nvgg19 is not here: fetch 3 MiB from {online.url}{FILE}\n" in out
    assert re.findall(r"^  (\d+)% of 3 MiB, \d+ s left$", out, re.MULTILINE)[-1] == "100"
    assert "  weights: vgg19  " in out
    assert contents(cache) == {FILE: DATA}
    made = read_json("o.json")
    assert made["weights"] == {"name": "vgg19", "sha256": hashlib.sha256(DATA).hexdigest()}
    assert made["flags"]["weights"] == "vgg19"
    assert "--weights=vgg19\n" in (here / "o.flags").read_text()
    picture = (here / "o.png").read_bytes()
    (here / "o.png").unlink()

    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert stylize(f"--flagfile={here / 'o.flags'}") == 0
    assert "% of" not in capsys.readouterr().out
    assert (here / "o.png").read_bytes() == picture
    assert len(online.requests) == 1


@pytest.mark.slow
def test_the_fetched_file_paints_what_the_file_itself_does(cache, here, online):
    (here / "own.h5").write_bytes(DATA)
    for name in ("vgg19", "own.h5", "random"):
        assert stylize(*PICTURES, *SMALL, f"--weights={name}", f"--output={name}.tif") == 0
    assert (here / "vgg19.tif").read_bytes() == (here / "own.h5.tif").read_bytes()
    assert (here / "vgg19.tif").read_bytes() != (here / "random.tif").read_bytes()


@pytest.mark.slow
def test_the_library_fetches_in_silence(cache, pictures, online, capsys):
    layers = {"style_layers": "relu1_1", "content_layers": "conv1_1"}
    result = jnst.stylize(*pictures, weights="vgg19", size=16, steps=2, **layers)
    assert result.image.shape == (16, 16, 3)
    assert capsys.readouterr() == ("", "")
    assert contents(cache) == {FILE: DATA}


def test_dry_run_says_what_a_run_would_fetch_and_fetches_nothing(cache, here, online, capsys):
    before = listed(here)
    arguments = [*PICTURES, *SMALL, "--weights=vgg19", "--output=out/o.png", "--dry_run"]
    assert stylize(*arguments) == 0
    out = capsys.readouterr().out
    assert f"vgg19 is not here: a run would first fetch 3 MiB from {online.url}{FILE}\n" in out
    assert "\ntime: about " in out
    assert online.requests == []
    assert listed(here) == before
    assert listed(cache.parent / "weights") == []

    assert call("fetch", "vgg19") == 0
    capsys.readouterr()
    assert stylize(*arguments) == 0
    assert "would first fetch" not in capsys.readouterr().out


@pytest.mark.slow
def test_dry_run_names_the_mirror_that_a_run_would_take(cache, here, online, monkeypatch, capsys):
    monkeypatch.setenv("JNST_MIRROR", "http://mirror.invalid/files")
    assert stylize(*PICTURES, *SMALL, "--weights=vgg19", "--output=out/o.png", "--dry_run") == 0
    assert f"would first fetch 3 MiB from http://mirror.invalid/files/{FILE}\n" in capsys.readouterr().out


MISTAKES = {
    "content": "--content=nothing.png",
    "style": "--style=nothing.png",
    "init": "--init=nothing.png",
    "layer": "--style_layers=relu9_9",
    "steps": "--steps=0",
    "ending": "--output=o.bmp",
    "folder": "--output=photo.png/o.png",
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_elsewhere_is_said_before_a_download(cache, here, online, capsys, case):
    before = listed(here)
    assert stylize(*PICTURES, *SMALL, "--weights=vgg19", "--output=out/o.png", MISTAKES[case]) == 2
    assert_one_line(capsys.readouterr().err, MISTAKES[case].partition("=")[2])
    assert online.requests == []
    assert listed(here) == before


def test_a_run_without_its_download_writes_nothing(cache, here, serve, monkeypatch, capsys):
    before = listed(here)
    monkeypatch.setenv("JNST_MIRROR", serve(answer(status=404)).url)
    assert stylize(*PICTURES, *SMALL, "--weights=vgg19", "--output=out/o.png") == 2
    assert_one_line(capsys.readouterr().err, "vgg19", "404", str(cache / REAL.file), "--weights", "random")
    assert listed(here) == before
    assert not (here / "out").exists()
    assert listed(cache) == []


@pytest.mark.slow
def test_ctrl_c_while_a_run_fetches(cache, here, online):
    online.script = (STALL,)
    before = listed(here)
    arguments = [*PICTURES, *SMALL, "--weights=vgg19", "--output=o.png"]
    child = start(record(DATA, online.url + FILE), "stylize", *arguments)
    read_until(child.stdout, "  30%")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (130, "jnst: interrupted before there was a picture; nothing written\n")
    assert listed(here) == before
    assert listed(cache) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_called_like_the_word_does_not_shadow_it(cache, here, online, capsys, kind):
    if kind == "file":
        canonical("vgg19")
    else:
        (here / "vgg19").mkdir()
    assert stylize(*PICTURES, *SMALL, "--weights=vgg19", "--output=o.png") == 0
    assert read_json("o.json")["weights"]["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert read_json("o.json")["flags"]["weights"] == "vgg19"
    if kind == "file":  # which can still be meant
        assert stylize(*PICTURES, *SMALL, "--weights=./vgg19", "--output=o.png") == 0
        own = hashlib.sha256((here / "vgg19").read_bytes()).hexdigest()
        assert read_json("o.json")["weights"] == {"name": "./vgg19", "sha256": own}
        assert read_json("o.json")["flags"]["weights"] == str(here / "vgg19")


def test_every_format_paints_the_same_picture(cache, here):
    arrays = network("net.npz")
    safetensors.numpy.save_file(arrays, "keras.safetensors")
    assert call("convert", "net.npz", "--output=own.safetensors") == 0
    with h5py.File("net.h5", "w") as file:
        for name, array in arrays.items():
            file[f"model_weights/{name}:0"] = array
    made = set()
    for name in ("net.npz", "net.h5", "own.safetensors"):
        assert stylize(*PICTURES, *SMALL, f"--weights={name}", "--output=o.tif") == 0
        assert read_json("o.json")["weights"]["name"] == name
        made.add((here / "o.tif").read_bytes())
    assert len(made) == 1


# ---- convert


def test_convert_keeps_it_in_the_cache_for_use_by_name(cache, here, tmp_path_factory, monkeypatch, capsys):
    network("net.npz")
    before, inside = contents(here), checkout()
    assert call("convert", "net.npz") == 0
    out, err = capsys.readouterr()
    assert err == ""
    summary, written = out.splitlines()
    assert summary.startswith("net.npz: keras")
    assert "conv1_1 to conv2_1, 4/6 channels" in summary
    assert written == f"{cache / 'net.safetensors'}: written; use it with --weights=net"
    assert (contents(here), checkout()) == (before, inside)
    assert listed(cache.parent) == ["weights/net.safetensors"]
    assert_equal_params(weights.load("net").params, weights.load("net.npz").params)

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("photo.png", "painting.png"):
        (elsewhere / name).write_bytes((here / name).read_bytes())
    monkeypatch.chdir(elsewhere)
    assert stylize(*PICTURES, *SMALL, "--weights=net", "--output=o.png") == 0
    own = hashlib.sha256((cache / "net.safetensors").read_bytes()).hexdigest()
    assert read_json("o.json")["weights"] == {"name": "net", "sha256": own}
    assert "--weights=net\n" in (elsewhere / "o.flags").read_text()
    assert stylize(*PICTURES, *SMALL, "--weights=nut", "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "--weights=nut: no such file; names: mini, vgg19, random, net")


def test_convert_keeps_what_is_known(cache, here):
    network("net.npz")
    assert call("convert", "net.npz", "--output=sub/own.safetensors") == 0
    assert not cache.exists()
    found = weights.load("sub/own.safetensors")
    assert found.licence == "CC BY 4.0"
    assert "Simonyan & Zisserman" in found.origin
    facts = read_facts(here / "sub" / "own.safetensors")
    assert facts["source_sha256"] == hashlib.sha256((here / "net.npz").read_bytes()).hexdigest()
    assert facts["widths"] == [4, 5, 6]


def test_convert_gives_the_same_bytes_again(cache, here):
    network("net.npz")
    for output in ("a.safetensors", "b.safetensors", "b.safetensors"):
        assert call("convert", "net.npz", f"--output={output}") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    for _ in range(2):
        assert call("convert", "net.npz") == 0
    assert contents(cache) == {"net.safetensors": (here / "a.safetensors").read_bytes()}


def test_convert_follows_the_source_that_is_asked_for(cache, here, capsys):
    arrays = {f"features.0.{part}": array for part, array in (("weight", np.ones((4, 3, 3, 3))), ("bias", np.ones(4)))}
    np.savez("net.npz", **arrays)
    assert call("convert", "net.npz") == 2
    assert_one_line(capsys.readouterr().err, "net.npz", "--source=caffe", "--source=torchvision")
    assert not cache.exists()
    for source in ("caffe", "torchvision"):
        assert call("convert", "net.npz", f"--source={source}", f"--output={source}.safetensors") == 0
    caffe, other = (weights.load(f"{source}.safetensors").params for source in ("caffe", "torchvision"))
    np.testing.assert_allclose(caffe["mean"], np.array([123.68, 116.779, 103.939]) / 255, rtol=1e-6)
    np.testing.assert_allclose(other["mean"], [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(caffe["conv1_1"]["kernel"], 255, rtol=1e-6)
    np.testing.assert_allclose(other["conv1_1"]["kernel"][0, 0, :, 0], 1 / np.array([0.229, 0.224, 0.225]), rtol=1e-6)


@pytest.mark.parametrize("word", ["vgg19", "random"])
def test_convert_takes_no_name_that_means_something_else(cache, here, word, capsys):
    network(f"{word}.npz")
    assert call("convert", f"{word}.npz") == 0
    assert capsys.readouterr().out.endswith(f"use it with --weights={word}-keras\n")
    assert listed(cache) == [f"{word}-keras.safetensors"]
    assert_equal_params(weights.load(f"{word}-keras").params, weights.load(f"./{word}.npz").params)


def test_convert_takes_no_name_of_bundled_weights(cache, here, monkeypatch):
    monkeypatch.setattr(bundled, "names", lambda *arguments: ["net"])
    network("net.npz")
    assert call("convert", "net.npz") == 0
    assert listed(cache) == ["net-keras.safetensors"]


def test_convert_of_the_word_fetches_first(cache, here, online, capsys):
    assert call("convert", "vgg19") == 0
    assert capsys.readouterr().out.endswith("use it with --weights=vgg19-keras\n")
    assert listed(cache) == sorted([FILE, "vgg19-keras.safetensors"])
    assert_equal_params(weights.load("vgg19-keras").params, weights.load("vgg19").params)


def test_convert_of_random_filters_would_be_another_network(cache, here, capsys):
    # They are scaled to the pictures at hand, which no file can say.
    assert call("convert", "random:1", "--output=o.safetensors") == 2
    assert_one_line(capsys.readouterr().err, "random:1", "expected a")
    assert not (here / "o.safetensors").exists()


def test_convert_from_another_folder_of_the_same_name_is_refused(cache, here, monkeypatch, capsys):
    network("net.npz")
    assert call("convert", "net.npz") == 0
    before = contents(cache)
    (here / "sub").mkdir()
    network("sub/net.npz", seed=1)
    capsys.readouterr()
    assert call("convert", "sub/net.npz") == 2
    place = cache / "net.safetensors"
    assert_one_line(capsys.readouterr().err, str(place), "was not made from sub/net.npz", "another --output")
    assert contents(cache) == before
    assert call("convert", "net") == 2  # itself, by its name
    assert_one_line(capsys.readouterr().err, str(place))
    assert call("convert", str(place)) == 2
    assert_one_line(capsys.readouterr().err, f"would replace {place}, which is read")
    assert contents(cache) == before


@pytest.mark.parametrize("way", ["weights", ""])
def test_convert_says_what_stands_in_the_way_of_the_cache(cache, here, monkeypatch, capsys, way):
    network("net.npz")
    (here / "mine").mkdir()
    monkeypatch.setenv("JNST_CACHE", str(here / "mine"))
    if not way:
        (here / "mine").rmdir()
    (here / "mine" / way if way else here / "mine").write_text("mine")
    before = contents(here)
    assert call("convert", "net.npz") == 2
    assert_one_line(capsys.readouterr().err, str(here / "mine" / "weights" / "net.safetensors"), "cannot be written")
    assert contents(here) == before


# ---- inspect


def rows(out):
    """`{layer: (shape, numbers)}` of the table."""
    found = {}
    for line in out.splitlines():
        if re.match(r"conv\d_\d ", line):
            layer, shape, *numbers = line.split()
            found[layer] = shape, [float(number) for number in numbers]
    return found


def test_inspect_has_a_row_for_each_layer(cache, here, capsys):
    arrays = network("net.npz")
    before, inside = listed(here), checkout()
    assert call("inspect", "net.npz") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = rows(out)
    assert tuple(found) == LAYERS
    for layer in LAYERS:
        kernel, bias = (
            arrays[f"block{layer[4]}_conv{layer[6]}/{part}"].astype(np.float64) for part in ("kernel", "bias")
        )
        if layer == "conv1_1":
            kernel = 255 * kernel  # of pixels in [0, 1]
        shape, numbers = found[layer]
        assert shape == "x".join(map(str, kernel.shape))
        np.testing.assert_allclose(numbers, [kernel.mean(), kernel.std(), bias.mean(), bias.std()], rtol=1e-3)
    for words in ("kernel", "mean", "deviation", "bias", "CC BY 4.0", "Simonyan", "(123.680, 116.779, 103.939)/255"):
        assert words in out
    assert f"SHA-256: {hashlib.sha256((here / 'net.npz').read_bytes()).hexdigest()}\n" in out
    assert "beyond the border: zeros" in out
    assert listed(here) == sorted([*before, "out/net-conv1_1.png"])
    assert checkout() == inside
    assert not cache.exists()


def sheet(kernel):
    """The picture of some filters as it should be: tiles of 3x3 squares of 16 pixels, 4 pixels of white around them."""
    count = kernel.shape[3]
    columns = round(count**0.5)
    picture = np.full((-(-count // columns) * 52 + 4, columns * 52 + 4, 3), 255.0)
    for index in range(count):
        tile = kernel[..., index]
        top, left = 4 + 52 * (index // columns), 4 + 52 * (index % columns)
        for y in range(48):
            for x in range(48):
                taps = tile[y // 16, x // 16] / (np.abs(tile).max() or 1)
                picture[top + y, left + x] = 127.5 + 127.5 * taps
    return picture


def test_inspect_draws_the_filters(cache, here, capsys):
    kernel = np.random.default_rng(2).normal(size=(3, 3, 3, 5))
    kernel[..., 3] = 0
    kernel[..., 4] = 0
    kernel[0, 2, 0, 4] = 1  # red at the top right
    kernel[2, 0, 2, 4] = -1  # no blue at the bottom left
    canonical("net.safetensors", kernel)
    assert call("inspect", "net.safetensors", "--output=sub/filters.png") == 0
    assert "sub/filters.png: the filters of conv1_1" in capsys.readouterr().out
    with Image.open("sub/filters.png") as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
        found = np.asarray(image, float)
    assert found.shape == (160, 108, 3)
    np.testing.assert_allclose(found, sheet(kernel), atol=1)
    last = found[4 + 2 * 52 :, 4:]
    np.testing.assert_allclose(last[8, 40], [255, 127.5, 127.5], atol=1)
    np.testing.assert_allclose(last[40, 8], [127.5, 127.5, 0], atol=1)
    np.testing.assert_allclose(last[24, 24], [127.5, 127.5, 127.5], atol=1)
    np.testing.assert_allclose(last[8, 60], [255, 255, 255])  # no sixth filter
    assert not (here / "out").exists()


def test_inspect_draws_the_colors_of_a_bgr_network_as_they_are(cache, here):
    arrays = network("net.npz", widths=(4,))
    assert call("inspect", "net.npz") == 0
    found = np.asarray(Image.open("out/net-conv1_1.png"), float)
    np.testing.assert_allclose(found, sheet(arrays["block1_conv1/kernel"][:, :, ::-1]), atol=1)


@pytest.mark.parametrize(
    "name", ["net", "vgg19", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "random:7"))]
)
def test_inspect_takes_names(cache, here, online, capsys, name):
    if name == "net":
        network("net.npz")
        assert call("convert", "net.npz") == 0
        (here / "net.npz").unlink()
    assert call("inspect", name) == 0
    found = rows(capsys.readouterr().out)
    count = {"net": 3, "vgg19": 3}.get(name, 16)
    assert len(found) == count
    with Image.open(here / "out" / f"{name}-conv1_1.png") as image:
        assert image.size == ((420, 420) if count == 16 else (108, 108))
    if count == 16:
        assert found["conv5_4"][0] == "3x3x512x512"
        kernel = weights.random_backbone(7 if "7" in name else 0, ["conv1_2"]).params["conv1_2"]["kernel"]
        assert found["conv1_2"][1][1] == pytest.approx(kernel.astype(np.float64).std(), rel=1e-3)


def test_inspect_replaces_its_picture_and_takes_every_format_of_pictures(cache, here):
    canonical("net.safetensors")
    for name in ("o.png", "o.png", "o.jpg", "o.webp", "o.tif"):
        assert call("inspect", "net.safetensors", f"--output={name}") == 0
        assert Image.open(name).size == (108, 160)


def test_home_in_a_name(cache, here, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home").mkdir()
    network("home/net.npz")
    assert call("convert", "~/net.npz", "--output=~/own.safetensors") == 0
    assert call("inspect", "~/own.safetensors", "--output=~/own.png") == 0
    assert listed(here / "home") == ["net.npz", "own.png", "own.safetensors"]


# ---- What the user got wrong

BAD = {
    "unknown command": (["fly"], "'fly': expected one of fetch, convert, inspect"),
    "command after a flag": (["--source=keras"], "expected one of fetch, convert, inspect"),
    "fetch what": (["fetch"], "fetch: expected a name, such as vgg19"),
    "convert what": (["convert"], "convert: expected a weights file"),
    "inspect what": (["inspect"], "inspect: expected a weights file"),
    "too many words": (["fetch", "vgg19", "vgg19"], "'vgg19'"),
    "a word too many": (["convert", "net.npz", "own.safetensors"], "'own.safetensors'"),
    "fetch of another name": (["fetch", "vgg16"], "fetch vgg16: expected one of vgg19"),
    "fetch of random": (["fetch", "random"], "fetch random: expected one of vgg19"),
    "fetch of a file": (["fetch", "net.npz"], "fetch net.npz: expected one of vgg19"),
    "output of fetch": (["fetch", "vgg19", "--output=o.h5"], "--output=o.h5: fetch takes no such flag"),
    "source of fetch": (["fetch", "vgg19", "--source=keras"], "--source=keras: fetch takes no such flag"),
    "address of convert": (["convert", "net.npz", "--url=http://a/b"], "--url=http://a/b: convert takes no such flag"),
    "address of inspect": (["--url=http://a/b", "inspect", "net.npz"], "--url=http://a/b: inspect takes no such flag"),
    "no address": (["fetch", "vgg19", "--url=a.h5"], "--url=a.h5: expected an address that begins with https://"),
    "half an address": (["fetch", "vgg19", "--url=http://["], "--url=http://[: "),
    "unknown flag": (["fetch", "vgg19", "--size=3"], "size"),
    "unknown source": (["convert", "net.npz", "--source=x"], "--source=x: expected one of auto, caffe, "),
    "another source": (["convert", "net.npz", "--source=matconvnet"], "--source=matconvnet"),
    "no flagfile": (["convert", "net.npz", "--flagfile=nothing"], "--flagfile=nothing: no such file"),
    "convert nothing": (["convert", "nothing.npz"], "nothing.npz: no such file"),
    "inspect nothing": (["inspect", "nothing.npz"], "nothing.npz: no such file"),
    "an empty name": (["inspect", ""], "no such file"),
    "a name too long": (["inspect", "a" * 300], "no such file"),
    "a folder": (["inspect", "folder"], "folder: no such file"),
    "a random seed": (["inspect", "random:x"], "random:x: expected random or random:SEED"),
    "text": (["inspect", "words.txt"], "words.txt: not a weights file"),
    "an empty file": (["convert", "empty.npz"], "empty.npz: not a weights file"),
    "half an .npz": (["convert", "cut.npz"], "cut.npz: not a whole .npz"),
    "half an .h5": (["inspect", "cut.h5"], "cut.h5: not a whole HDF5 file"),
    "another network": (["convert", "other.npz"], "other.npz: no layer found"),
    "ending": (["convert", "net.npz", "--output=o.npz"], "--output=o.npz: expected a name that ends in .safetensors"),
    "no ending": (["convert", "net.npz", "--output=o"], "--output=o: expected a name that ends in .safetensors"),
    "convert to itself": (
        ["convert", "own.safetensors", "--output=own.safetensors"],
        "--output=own.safetensors: would replace own.safetensors, which is read",
    ),
    "convert to itself by another way": (
        ["convert", "own.safetensors", "--output=folder/../link.safetensors"],
        "would replace own.safetensors, which is read",
    ),
    "somebody's file": (
        ["convert", "net.npz", "--output=foreign.safetensors"],
        "--output=foreign.safetensors: is there already and was not made from net.npz",
    ),
    "somebody's text": (["convert", "net.npz", "--output=text.safetensors"], "--output=text.safetensors: is there"),
    "conversion of another file": (
        ["convert", "net.npz", "--output=second.safetensors"],
        "--output=second.safetensors: is there already and was not made from net.npz",
    ),
    "jnst's own, but no conversion": (["convert", "net.npz", "--output=own.safetensors"], "--output=own.safetensors"),
    "to a folder": (["convert", "net.npz", "--output=folder.safetensors"], "--output=folder.safetensors: is a folder"),
    "file as a folder": (
        ["convert", "net.npz", "--output=words.txt/o.safetensors"],
        "--output=words.txt/o.safetensors: cannot be written",
    ),
    "no picture": (["inspect", "net.npz", "--output=o.bmp"], "--output=o.bmp: expected a name ending in .png"),
    "inspect onto itself": (["inspect", "net.png", "--output=net.png"], "would replace net.png, which is read"),
    "picture to a folder": (["inspect", "net.npz", "--output=folder.png"], "--output=folder.png: is a folder"),
    "picture under a file": (["inspect", "net.npz", "--output=words.txt/o.png"], "--output=words.txt/o.png: cannot"),
}


@pytest.fixture
def troubled(cache, here):
    network("net.npz")
    network("net.png")
    network("second.npz", seed=1)
    assert call("convert", "second.npz", "--output=second.safetensors") == 0
    canonical("own.safetensors")
    (here / "link.safetensors").symlink_to("own.safetensors")
    safetensors.numpy.save_file({"a": np.zeros(3)}, "foreign.safetensors")
    for folder in ("folder", "folder.safetensors", "folder.png"):
        (here / folder).mkdir()
    for name in ("words.txt", "text.safetensors"):
        (here / name).write_text("These are words, and no numbers.\n")
    (here / "empty.npz").write_bytes(b"")
    (here / "cut.npz").write_bytes((here / "net.npz").read_bytes()[:500])
    (here / "cut.h5").write_bytes(DATA[: len(DATA) // 2])
    np.savez("other.npz", a=np.zeros(3))
    return here


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_everything(troubled, cache, capsys, case):
    arguments, message = BAD[case]
    capsys.readouterr()
    before = contents(troubled)
    assert call(*arguments) == 2
    assert_one_line(capsys.readouterr().err, message)
    assert contents(troubled) == before
    assert listed(cache) == []
    assert not (troubled / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["convert", "vgg19", "--output=o.npz"], ["inspect", "vgg19", "--output=o.bmp"], ["inspect", "vgg19"]]
)
def test_a_mistake_in_the_output_is_said_before_a_download(cache, here, online, capsys, arguments):
    if len(arguments) == 2:
        (here / "out").write_text("in the way")
    assert call(*arguments) == 2
    assert_one_line(capsys.readouterr().err, "--output=")
    assert online.requests == []


def test_full_disk_leaves_no_half_conversion(cache, here, capsys):
    network("net.npz")
    assert call("convert", "net.npz", "--output=o.safetensors") == 0
    before = contents(here)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        codes = [call("convert", "net.npz", *more) for more in ([], ["--output=o.safetensors"])]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert codes == [2, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": cannot be written: ")[2] for line in lines] == ["File too large"] * 2
    assert contents(here) == before
    assert listed(cache) == []


# ---- What is asked without work


def test_no_arguments_print_usage(cache, capsys):
    assert call() == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: weights fetch NAME | convert FILE [--output=...] | inspect FILE")
    for words in ("weights fetch vgg19", "weights convert", "weights inspect", "--help"):
        assert words in out
    assert err == ""


def test_version(cache, capsys):
    assert call("--version") == 0
    assert capsys.readouterr() == (f"jnst {jnst.__version__}\n", "")


def test_help_has_every_flag_and_waits_for_nothing(here):
    code = """
import sys
from jnst.cli.weights import main
lines = ("", "--help", "--version", "fly", "fetch", "fetch vgg19 --output=x")
codes = [main(["weights", *words.split()]) for words in lines]
sys.exit(f"{codes} {[name for name in ('jax', 'numpy', 'requests') if name in sys.modules]}")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 2, 2, 2] []"
    for name in ("output", "source", "url", "flagfile", "version", "help"):
        assert f"\n  --{name}" in done.stdout
    for source in ("caffe", "torchvision", "normalised", "slim16x", "keras", "matconvnet"):
        assert source in done.stdout


@pytest.mark.slow
def test_bin_weights_runs_from_anywhere_and_through_a_link(here, tmp_path_factory, monkeypatch):
    # A checkout of its own, and an environment that fits it: nothing is set up in this one.
    root, environment = tmp_path_factory.mktemp("a checkout"), tmp_path_factory.mktemp("environment")
    for name in ("bin", "jnst"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "all.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n{root}\n")
    monkeypatch.setenv("PATH", f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (here / "link").symlink_to(root / "bin" / "weights")
    before = listed(root)
    done = subprocess.run(["./link", "--help"], capture_output=True, text=True, timeout=PATIENCE, cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: weights fetch NAME | convert FILE")
    assert "--source" in done.stdout
    assert listed(root) == before
    assert not (root / ".venv").exists()


def test_params_of_the_small_file_are_those_that_were_written(cache, online):
    """What all the tests above rest on."""
    assert fetch.fetch("vgg19") == cache / FILE
    found, expected = weights.load("vgg19").params, params()
    for layer in LAYERS[1:]:
        np.testing.assert_array_equal(found[layer]["kernel"], expected[layer]["kernel"])


def test_a_run_asks_for_the_source_and_takes_it(here, capsys):
    """A state dict whose numbers are nobody's: the flag of `convert` is one of `stylize` too."""
    rng = np.random.default_rng(3)
    layers = {"features.0.weight": rng.normal(size=(4, 3, 3, 3)), "features.0.bias": np.zeros(4)}
    np.savez("net.npz", **{name: array.astype(np.float32) for name, array in layers.items()})
    flags = [*PICTURES, *SMALL, "--weights=net.npz", "--output=o.png"]
    assert stylize(*flags) == 2
    assert_one_line(capsys.readouterr().err, "net.npz: ", "--source=caffe", "--source=torchvision")
    totals = set()
    for source in ("caffe", "torchvision"):
        assert stylize(*flags, f"--source={source}") == 0
        totals.add(read_json("o.json")["trace"][0]["total"])
        assert f"--source={source}\n" in (here / "o.flags").read_text()
    assert len(totals) == 2
