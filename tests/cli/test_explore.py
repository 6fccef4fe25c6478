"""`explore` as its user sees it: what each look says and leaves, that it repeats, and what it refuses."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import reference
from PIL import Image

from cli.command import assert_one_line, listed, read_json
from jnst import embedding_index, images
from jnst.cli import explore as command
from jnst.cli import looks

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.explore"]
NET = ["--weights=net.safetensors", "--layers=relu2_1", "--size=16"]


def call(*arguments):
    return command.main(["explore", *arguments])


def paint(path, seed, shift=0.0):
    """A picture of its own for each seed; `shift` makes a like one."""
    picture = np.clip(reference.smooth_picture(24, 20, seed) + shift, 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(path)


@pytest.fixture
def studio(here, tiny_file, monkeypatch):
    """A small network, and a folder of three identities with two like pictures each."""
    (here / "net.safetensors").write_bytes(open(tiny_file, "rb").read())
    monkeypatch.setenv("JNST_CACHE", str(here / "cache"))
    for seed, name in enumerate(("ann", "bob", "eve")):
        for number, shift in enumerate((0.0, 0.02)):
            paint(here / "people" / name / f"{number}.png", seed + 10, shift)
    paint(here / "who.png", 11, 0.01)
    return here


def made(folder):
    return [name for name in listed(folder) if name.startswith("out/")]


# ---- What is inside


def test_filters_stand_around_gray_in_red_green_and_blue(studio, capsys):
    assert call("filters", "--weights=net.safetensors", "--output=out/f.png") == 0
    assert "4 kernels" in capsys.readouterr().out
    assert made(studio) == ["out/f.flags", "out/f.json", "out/f.png"]
    from jnst import weights

    kernel = weights.load("net.safetensors").params["conv1_1"]["kernel"][..., 2]
    expected = np.rint(255 * (0.5 + 0.5 * kernel / np.abs(kernel).max()))
    tile = expected.repeat(21, 0).repeat(21, 1)  # each tap 21 pixels
    strip = np.asarray(Image.open("out/f.png"), np.float64)[:, 9 : 9 + 63]  # the first of two columns
    assert min(np.abs(strip[top : top + 63] - tile).max() for top in range(len(strip) - 62)) <= 1


def test_activations_are_the_strongest_of_each_layer(studio, tiny, capsys):
    flags = ["--weights=net.safetensors", "--layers=conv1_1,relu2_1", "--channels=3", "--output=out/a.png"]
    assert call("activations", "photo.png", *flags) == 0
    out = capsys.readouterr().out
    assert "conv1_1: 4 channels of 16x16, the 3 strongest shown" in out
    assert "relu2_1: 5 channels of 8x8" in out
    picture = images.load("photo.png").rgb.astype(np.float64)
    maps = reference.features(tiny, picture, ("conv1_1", "relu2_1"), "avg", "zeros")
    results = read_json("out/a.json")["results"]
    for layer in ("conv1_1", "relu2_1"):
        means = np.abs(maps[layer]).mean((0, 1))
        order = np.argsort(-means)[:3]
        assert [one["channel"] for one in results[layer]["strongest"]] == order.tolist()
        np.testing.assert_allclose([one["mean"] for one in results[layer]["strongest"]], means[order], rtol=1e-4)


# ---- Beside each other


def test_neighbors_by_features_and_pixels_leave_the_query_out(studio, capsys):
    (studio / "people" / "ann" / "copy.png").write_bytes((studio / "people" / "bob" / "0.png").read_bytes())
    (studio / "people" / "eve" / "bad.png").write_bytes(b"no picture")
    flags = [*NET, "--count=3", "--output=out/n.png"]
    assert call("neighbors", "people/bob/0.png", "people", *flags) == 0
    out, err = capsys.readouterr()
    assert_one_line(err, "skipped: people/eve/bad.png: not a picture")
    results = read_json("out/n.json")["results"]
    for way in ("features", "pixels"):
        paths, distances = ([one[key] for one in results[way]] for key in ("path", "distance"))
        assert paths[0] == "bob/1.png"  # the query itself is not there, nor its copy
        assert len(paths) == 3
        assert not {"bob/0.png", "ann/copy.png"} & set(paths)
        assert distances == sorted(distances)
    small = [embedding_index.look(f"people/bob/{n}.png", 16)[1].astype(np.float64) for n in (0, 1)]
    expected = np.sqrt(((small[0] - small[1]) ** 2).mean()) / 255
    assert results["pixels"][0]["distance"] == pytest.approx(expected, abs=1e-6)
    assert f"  {expected:.4f}  people/bob/1.png\n" in out
    sheet = np.asarray(Image.open("out/n.png"))
    assert sheet.shape[1] == 8 + 4 * (128 + 8)  # the query and three, in one row


def test_neighbors_without_output_print_and_leave_nothing(studio, capsys):
    before = [name for name in listed(studio) if not name.startswith("cache")]
    assert call("neighbors", "who.png", "people", *NET) == 0
    assert "people/bob/" in capsys.readouterr().out
    assert [name for name in listed(studio) if not name.startswith("cache")] == before


def test_the_index_serves_the_next_look(studio, capsys):
    assert call("neighbors", "who.png", "people", *NET) == 0
    assert "6 pictures, 6 of them new" in capsys.readouterr().out
    paint(studio / "people" / "eve" / "2.png", 40)
    assert call("identify", "who.png", "people", *NET) == 0
    assert "7 pictures, 1 of them new" in capsys.readouterr().out
    assert call("identify", "who.png", "people", *NET, "--layers=relu1_1") == 0
    assert "7 pictures, 7 of them new" in capsys.readouterr().out


def test_verify_says_same_or_different_by_a_threshold_and_neither_without(studio, capsys):
    pair = ["people/bob/0.png", "people/bob/1.png"]
    assert call("verify", *pair, *NET) == 0
    out = capsys.readouterr().out
    assert "so neither the same nor different" in out
    distance = float(out.split()[1])
    assert call("verify", *pair, *NET, f"--threshold={distance + 0.001}") == 0
    assert capsys.readouterr().out.startswith("the same: ")
    assert call("verify", *pair, *NET, f"--threshold={max(0, distance - 0.001)}") == 0
    assert capsys.readouterr().out.startswith("different: ")
    assert call("verify", pair[0], pair[0], *NET, "--threshold=0") == 0
    assert capsys.readouterr().out.startswith("the same: distance 0.0000")


def test_verify_calibrates_draws_the_curve_and_records_it(studio, capsys):
    flags = [*NET, "--calibrate=people", "--output=out/v.png"]
    assert call("verify", "who.png", "people/bob/0.png", *flags) == 0
    out = capsys.readouterr().out
    assert "6 pictures of 3 identities (3 pairs of the same, 12 of different ones): equal error rate 0.0%" in out
    assert "the same: " in out
    results = read_json("out/v.json")["results"]
    assert results["equal_error_rate"] == 0
    assert results["same"] is True
    assert results["distance"] < results["threshold"]
    assert results["roc"]["false_accepts"][-1] == 1
    assert call("verify", "--calibrate=people", *NET) == 0  # the calibration alone


def test_identify_names_the_subfolder_or_says_unknown(studio, capsys):
    assert call("identify", "who.png", "people", *NET) == 0
    out = capsys.readouterr().out
    assert "bob: the nearest of 3 at distance" in out
    assert "never unknown" in out
    assert call("identify", "who.png", "people", *NET, "--calibrate=people", "--output=out/i.png") == 0
    assert read_json("out/i.json")["results"]["identity"] == "bob"
    assert call("identify", "photo.png", "people", *NET, "--threshold=0", "--output=out/i.png") == 0
    assert "unknown: " in capsys.readouterr().out
    assert read_json("out/i.json")["results"]["identity"] is None


def test_in_a_flat_folder_each_file_is_an_identity(studio, capsys):
    assert call("identify", "who.png", "people/bob", *NET) == 0
    assert "the nearest of 2" in capsys.readouterr().out


# ---- The map


@pytest.mark.slow
def test_a_map_has_a_place_for_each_picture_and_repeats(studio, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    assert call("tsne", "people", *NET, "--side=400", "--seed=3", "--output=out/m.png") == 0
    assert "perplexity 1.67, as 6 pictures are too few for 30" in capsys.readouterr().out
    record, picture = read_json("out/m.json"), (studio / "out" / "m.png").read_bytes()
    assert [point["path"] for point in record["results"]["points"]][:2] == ["ann/0.png", "ann/1.png"]
    assert len(record["results"]["points"]) == 6
    assert call("--flagfile=out/m.flags") == 0
    assert (studio / "out" / "m.png").read_bytes() == picture
    assert call("--flagfile=out/m.flags", "--seed=4") == 0
    assert read_json("out/m.json")["flags"]["seed"] == 4


@pytest.mark.slow
def test_pictures_that_are_all_alike_have_a_map(studio):
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    for number in range(4):
        paint(studio / "same" / f"{number}.png", 1)
    assert call("tsne", "same", *NET, "--side=300", "--output=out/m.png") == 0
    assert np.isfinite([point["place"] for point in read_json("out/m.json")["results"]["points"]]).all()


def test_without_scikit_learn_the_extra_is_named(studio, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert call("tsne", "people", *NET, "--output=out/m.png") == 2
    assert_one_line(capsys.readouterr().err, "scikit-learn", "jnst[explore]")


def test_two_pictures_are_no_map(studio, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    assert call("tsne", "people/bob", *NET, "--output=out/m.png") == 2
    assert "expected three or more" in capsys.readouterr().err


# ---- Flagfiles and records


def test_a_flagfile_makes_it_again_from_another_folder(studio, monkeypatch):
    assert call("neighbors", "who.png", "people", *NET, "--output=out/n.png") == 0
    picture, record = (studio / "out" / "n.png").read_bytes(), read_json("out/n.json")
    assert record["flags"]["pictures"] == f"{studio / 'who.png'},{studio / 'people'}"
    assert record["inputs"]["people"]["pictures"] == 6
    (studio / "elsewhere").mkdir()
    monkeypatch.chdir(studio / "elsewhere")
    assert call(f"--flagfile={studio / 'out' / 'n.flags'}") == 0
    assert (studio / "out" / "n.png").read_bytes() == picture
    assert str(studio).encode() not in picture


def test_words_win_over_flags_and_flags_do_without_words(studio, capsys):
    flags = ["--look=identify", "--pictures=who.png,people", *NET]
    assert call(*flags) == 0
    assert "bob: the nearest" in capsys.readouterr().out
    assert call(*flags, "who.png", "people/bob") == 0
    assert "the nearest of 2" in capsys.readouterr().out
    assert call("verify", "who.png", "who.png", *flags) == 0
    assert capsys.readouterr().out.startswith("distance 0.0000")


def test_ctrl_c_keeps_what_was_described(studio, monkeypatch, capsys):
    for number in range(embedding_index.BATCH + 3):
        paint(studio / "many" / f"{number:02}.png", number)
    original = looks._Bar.show

    def show(self, done, total):
        original(self, done, total)
        if done == embedding_index.BATCH:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(looks._Bar, "show", show)
    assert call("neighbors", "who.png", "many", *NET) == 130
    assert f"interrupted; {embedding_index.BATCH} pictures of many" in capsys.readouterr().err
    monkeypatch.setattr(looks._Bar, "show", original)
    assert call("neighbors", "who.png", "many", *NET) == 0
    assert "19 pictures, 3 of them new" in capsys.readouterr().out


# ---- What it refuses

BAD = {
    "no word": (["--size=16"], "'no word': expected one of filters, activations"),
    "unknown word": (["filter", "--output=o.png"], "'filter': expected one of filters, activations"),
    "unknown flag": (["filters", "--sizes=3"], "sizes"),
    "no picture": (["activations", "--output=o.png"], "activations: expected one picture, found 0"),
    "one for two": (["neighbors", "who.png"], "neighbors: expected a picture and a folder, found 1: who.png"),
    "nothing to verify": (["verify"], "verify: expected two pictures"),
    "picture for filters": (["filters", "who.png", "--output=o.png"], "filters: expected no picture, found 1"),
    "no output": (["filters"], "--output is missing"),
    "folder as query": (["neighbors", "people", "people"], "people: is a folder; expected a picture"),
    "missing query": (["neighbors", "nothing.png", "people"], "nothing.png: no such file"),
    "damaged query": (["neighbors", "cut.png", "people"], "cut.png: damaged or truncated"),
    "damaged picture": (["verify", "who.png", "cut.png"], "cut.png: damaged or truncated"),
    "missing folder": (["neighbors", "who.png", "nothing"], "--pictures=nothing: no such folder"),
    "file as folder": (["neighbors", "who.png", "photo.png"], "--pictures=photo.png: no such folder"),
    "empty folder": (["identify", "who.png", "empty"], "--pictures=empty: no picture in this folder"),
    "nothing but the query": (["neighbors", "alone/0.png", "alone"], "holds nothing but alone/0.png"),
    "layers not in the weights": (["activations", "who.png", "--weights=short.safetensors"], "ends at conv1_1"),
    "unknown layer": (["verify", "who.png", "who.png", "--layers=relu9_1"], "--layers=relu9_1"),
    "layer with a number": (["verify", "who.png", "who.png", "--layers=relu1_1:2"], "without numbers"),
    "missing weights": (["filters", "--weights=nothing.npz", "--output=o.png"], "nothing.npz: no such file"),
    "threshold of nan": (["verify", "who.png", "who.png", "--threshold=nan"], "--threshold=nan: expected"),
    "threshold below zero": (["verify", "who.png", "who.png", "--threshold=-0.1"], "--threshold=-0.1: expected"),
    "threshold no number": (["verify", "who.png", "who.png", "--threshold=low"], "--threshold=low: expected"),
    "threshold twice": (
        ["verify", "who.png", "who.png", "--threshold=0.1", "--calibrate=people"],
        "--threshold=0.1: expected none with --calibrate",
    ),
    "threshold elsewhere": (["neighbors", "who.png", "people", "--threshold=0.1"], "neighbors takes no such flag"),
    "no calibration": (["verify", "who.png", "who.png", "--calibrate=nothing"], "--calibrate=nothing: no such folder"),
    "one identity": (["verify", "who.png", "who.png", "--calibrate=one"], "--calibrate=one: 1 subfolders"),
    "flat calibration": (["verify", "who.png", "who.png", "--calibrate=people/bob"], "0 subfolders with pictures"),
    "no pair": (["verify", "who.png", "who.png", "--calibrate=single"], "no subfolder with two pictures"),
    "too small for the layer": (
        ["activations", "dot.png", "--layers=relu5_1", "--output=o.png"],
        "too few for relu5_1",
    ),
    "size too small": (["neighbors", "who.png", "people", "--layers=relu5_1", "--size=8"], "--size=8: 8 pixels"),
    "no such device": (["verify", "who.png", "who.png", "--device=cpu:99"], "--device=cpu:99"),
    "perplexity of nan": (["tsne", "people", "--perplexity=nan", "--output=o.png"], "--perplexity=nan"),
    "unknown ending": (["filters", "--output=o.bmp"], "--output=o.bmp: expected a name ending in"),
    "output in a file": (["filters", "--output=who.png/o.png"], "cannot be written"),
    "output is the query": (["activations", "who.png", "--output=who.png"], "would replace who.png, which is read"),
    "output in what is read": (["tsne", "people", "--output=people/o.png"], "lies in people, which is read"),
    "a flagfile written by hand": (["filters", "--output=mine.png"], "would replace mine.flags, which no run of jnst"),
    "a record of something else": (["filters", "--output=other.png"], "would replace other.json, which no run of jnst"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_line(studio, tiny, capsys, arguments, words):
    from jnst import weights

    (studio / "empty").mkdir()
    (studio / "cut.png").write_bytes((studio / "who.png").read_bytes()[:200])
    (studio / "mine.flags").write_text("--size=3\n")
    (studio / "other.json").write_text("{}\n")
    Image.new("RGB", (4, 4)).save(studio / "dot.png")
    paint(studio / "alone" / "0.png", 3)
    for name in ("one/a/0", "one/a/1", "single/a/0", "single/b/0"):
        paint(studio / f"{name}.png", len(name))
    shallow = {name: tiny[name] for name in ("mean", "conv1_1")}
    weights.save_safetensors("short.safetensors", shallow, origin="tests", licence="none")
    if arguments[0] == "activations" and "--output" not in "".join(arguments):
        arguments = [*arguments, "--layers=relu2_1", "--output=o.png"]
    given = "".join(arguments)
    more = [flag for flag in NET if flag.split("=")[0] + "=" not in given and arguments[0] != "activations"]
    if arguments[0] in ("activations", "filters") and "--weights" not in given:
        more = NET[:1]
    assert call(*arguments, *more) == 2
    err = capsys.readouterr().err
    err = "".join(line for line in err.splitlines(keepends=True) if "beside the subfolders" not in line)
    assert_one_line(err, words)
    assert not {"o.png", "o.json", "o.flags"} & set(listed(studio))


def test_help_version_and_no_arguments_need_no_jax():
    for argument in ("--help", "--version", ""):
        code = f"import sys; from jnst.cli.explore import main; main(['x', *{argument.split()}]); "
        code += "sys.exit('jax' in sys.modules)"
        subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_real_process_answers(studio):
    done = subprocess.run(
        [*COMMAND, "identify", "who.png", "people", *NET], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "bob: the nearest of 3" in done.stdout
