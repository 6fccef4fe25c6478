"""A sheet of textures: each sample above what `bin/texture` makes of it, from patches and by Gram matrices.

python benchmarks/textures.py SHEET.jpg FOLDER [size=256 steps=300 weights=mini]

FOLDER has the samples; FOLDER/made gets the textures, and those that are finished stay as they are. Prints a table of
the Gram residuals, as in the records.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from jnst import images
from jnst.cli import report, texture

DEFAULTS = {"size": "256", "steps": "300", "weights": "mini"}
ROWS = {"sample": None, "patches": "patches", "Gram": "gram"}


def main(argv):
    """Makes, draws and prints; returns the exit code."""
    given = dict(word.split("=", 1) for word in argv[3:] if "=" in word)
    if len(argv) < 3 or len(given) < len(argv) - 3 or given.keys() - DEFAULTS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    chosen = [f"--{name}={value}" for name, value in (DEFAULTS | given).items()]
    samples = sorted(path for path in Path(argv[2]).iterdir() if path.suffix in (".png", ".jpg"))
    made = {}
    for path in samples:
        for method in filter(None, ROWS.values()):
            output = made[path, method] = path.parent / "made" / f"{path.stem}-{method}.png"
            flags = [f"--image={path}", f"--output={output}", f"--method={method}", "--resume", *chosen]
            if code := texture.main(["texture", *flags]):
                return code
    pictures = [images.load(made.get((path, method), path)).rgb for path in samples for method in ROWS.values()]
    sheet = images.labelled_sheet([("", [path.stem for path in samples]), ("", list(ROWS))], pictures, tile=256)
    Image.fromarray(np.rint(sheet * 255).astype(np.uint8)).save(argv[1], quality=88, optimize=True)
    for (path, method), output in made.items():
        found = report.read_record(str(output))["gram_residuals"].items()
        print(f"| {path.stem} | {method} | " + " | ".join(f"{100 * value:.2g}%" for _, value in found) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
