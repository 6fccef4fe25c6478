"""notebooks/colab_tpu.ipynb, executed from its first cell to its last, small and on the CPU."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
NOTEBOOK = json.loads((ROOT / "notebooks" / "colab_tpu.ipynb").read_text("utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
SMALL = {
    "SIZE = 512": "SIZE = 32",
    "STEPS = 100": "STEPS = 2",
    'AXES = ["style_weight=10,100,1000", "style_scale=1,2", "seed=0,1"]': 'AXES = ["style_weight=10,100", "seed=0,1"]',
}


def test_it_is_a_notebook_of_four_cells_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len(CODE) == 4
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    for source in CODE:  # plain Python: what runs here is what runs there
        compile(source, "cell", "exec")


@pytest.mark.slow
def test_its_cells_make_a_grid(tmp_path):
    small = list(CODE)
    for old, new in SMALL.items():
        assert sum(source.count(old) for source in small) == 1
        small = [source.replace(old, new) for source in small]
    # No pip may be started: jnst is here.
    guard = "import subprocess\n_run = subprocess.run\ndef run(command, **options):\n"
    guard += "    assert 'pip' not in command, command\n    return _run(command, **options)\nsubprocess.run = run\n"
    script = tmp_path / "cells.py"
    script.write_text(guard + "\n".join(small))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-P", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "plan: 4 runs, 1 group, 1 program" in done.stdout
    assert "run,style_weight,seed,total,content,style,tv,seconds,picture" in done.stdout
    assert Image.open(tmp_path / "grid" / "sheet.png").size[0] > 64
    with zipfile.ZipFile(tmp_path / "grid.zip") as archive:
        assert {"index.html", "grid.csv", "sheet.png"} <= set(archive.namelist())
