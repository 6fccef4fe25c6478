import os

import pytest

from jnst import bundled


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A wheel's folder with one preset and a checkout's with two; the working folder is elsewhere."""
    wheel, checkout, elsewhere = (tmp_path / name for name in ("wheel", "checkout", "elsewhere"))
    for root, names in ((wheel, ["both.flags"]), (checkout, ["both.flags", "only.flags"])):
        (root / "presets").mkdir(parents=True)
        for name in names:
            (root / "presets" / name).write_text("--size=16\n")
    (checkout / "secret.flags").write_text("")
    elsewhere.mkdir()
    monkeypatch.setattr(bundled, "_ROOTS", (wheel, checkout))
    monkeypatch.chdir(elsewhere)
    return wheel, checkout


@pytest.mark.parametrize("name", ["only", "only.flags", "presets/only.flags", "presets/only"])
def test_bundled_file_is_found_from_any_folder(roots, name):
    assert bundled.find(name, "presets", ("", ".flags")) == roots[1] / "presets" / "only.flags"


def test_wheel_comes_before_the_checkout(roots):
    assert bundled.find("both", "presets", (".flags",)) == roots[0] / "presets" / "both.flags"


def test_file_on_disk_comes_before_a_bundled_one(roots):
    with open("only.flags", "w"):
        pass
    assert os.fspath(bundled.find("only.flags", "presets")) == "only.flags"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret.flags",
        "presets/../secret.flags",
        "presets/",
        "presets",
        "no",
        "a" * 300,
        "\0",
    ],
)
def test_other_names_are_nothing(roots, name):
    assert bundled.find(name, "presets", ("", ".flags")) is None


def test_names_are_listed_once_and_sorted(roots):
    assert bundled.names("presets", ".flags") == ["both", "only"]
    assert bundled.names("nothing", ".flags") == []
