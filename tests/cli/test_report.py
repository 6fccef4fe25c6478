import json
from pathlib import Path

import pytest

from jnst.cli import report

CHOSEN = {
    "content": "/somewhere/Paris, France.png",
    "style": "/else/where/a.png,/b/c.png",
    "weights": "/models/net.npz",
    "init": "noise",
    "output": "/out/o.png",
    "device": "auto",
    "print_every": 20,
    "save_every": 0,
    "size": 16,
    "style_weight": 0.1,
}
WEIGHTS = {"name": "/models/net.npz", "sha256": "12ab"}


def test_embedded_text_names_files_without_their_folders():
    text = json.loads(report.embedded(CHOSEN, WEIGHTS))
    assert text["weights"] == {"name": "net.npz", "sha256": "12ab"}
    assert text["flags"] == {
        "content": "Paris, France.png",
        "style": "a.png,c.png",
        "weights": "net.npz",
        "init": "noise",
        "size": 16,
        "style_weight": 0.1,
    }
    assert text["jnst"]


def test_embedded_text_is_the_same_for_other_outputs_devices_folders_and_orders():
    other = dict(reversed(CHOSEN.items())) | {"output": "/x/y.png", "device": "gpu:1", "print_every": 1}
    other |= {"save_every": 3, "style": "/elsewhere/a.png,/c.png", "content": "/x/Paris, France.png"}
    assert report.embedded(other, WEIGHTS | {"name": "net.npz"}) == report.embedded(CHOSEN, WEIGHTS)
    assert report.embedded(CHOSEN | {"size": 17}, WEIGHTS) != report.embedded(CHOSEN, WEIGHTS)
    assert report.embedded(CHOSEN, WEIGHTS | {"sha256": "34"}) != report.embedded(CHOSEN, WEIGHTS)


def test_record_is_strict_json(tmp_path):
    report.write_record(str(tmp_path / "a.b.png"), {"total": 0.1})
    assert json.loads((tmp_path / "a.b.json").read_text()) == {"total": 0.1}
    with pytest.raises(ValueError, match="JSON"):
        report.write_record(str(tmp_path / "a.b.png"), {"total": float("nan")})
    assert json.loads((tmp_path / "a.b.json").read_text()) == {"total": 0.1}


@pytest.mark.parametrize(
    ("output", "step", "expected"),
    [
        ("out/a.png", 100, "out/a-000100.png"),
        ("a.b.JPG", 7, "a.b-000007.JPG"),
        ("a.png", 10**7, "a-10000000.png"),
    ],
)
def test_intermediate_pictures_are_numbered(output, step, expected):
    assert report.intermediate(output, step) == Path(expected)
