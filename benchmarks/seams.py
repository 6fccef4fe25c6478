"""A large picture by exact tiles, and by tiles that know nothing of each other, side by side: docs/tiles.jpg.

python benchmarks/seams.py OUT.jpg [content=harbor style=strokes size=2048 tile=512 steps=30 weights=mini]

Left, `stylize --tile`: the gradient of the whole picture. Right, what cutting a picture up does: each tile is a run of
its own, with the same flags, style at the same scale and number of steps, and they are laid together. Below, both at
full size around a place where four tiles meet.
"""

import sys

import numpy as np
from PIL import Image

import jnst
from jnst import api, images
from jnst.config import StylizeConfig
from jnst.images import Picture

DEFAULTS = {"content": "harbor", "style": "strokes", "size": "2048", "tile": "512", "steps": "30", "weights": "mini"}
WIDTH, DETAIL = 640, 400


def main(argv):
    """Makes the sheet; returns the exit code."""
    given = dict(word.split("=", 1) for word in argv[2:])
    if len(argv) < 2 or given.keys() - DEFAULTS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    chosen = {**DEFAULTS, **given}
    size, tile, steps = (int(chosen[name]) for name in ("size", "tile", "steps"))
    options = {"weights": chosen["weights"], "steps": steps, "scales": "1"}
    config = StylizeConfig(content=chosen["content"], style=chosen["style"], size=size, **options)
    content = api.read_inputs(config).content
    exact = jnst.stylize(chosen["content"], chosen["style"], size=size, tile=str(tile), **options).image
    naive = np.zeros_like(exact)
    for top in range(0, exact.shape[0], tile):
        for left in range(0, exact.shape[1], tile):
            place = (slice(top, top + tile), slice(left, left + tile))
            part = content.opaque()[place]
            longest = max(part.shape[:2])
            scale = max(content.size) / longest  # of the style: strokes of the same size
            own = jnst.stylize(part, chosen["style"], size=longest, style_scale=scale, **options)
            naive[place] = own.image
            print(f"tile at {left},{top} of {content.size[0]}x{content.size[1]}", flush=True)
    sheet = np.rint(255 * np.clip(_sheet([exact, naive], tile), 0, 1)).astype(np.uint8)
    Image.fromarray(sheet).save(argv[1], quality=80)  # a third of the size of what jnst writes
    return 0


def _sheet(pictures, tile):
    height, width = pictures[0].shape[:2]
    whole = [images.resize(Picture(one), (WIDTH, round(WIDTH * height / width))).rgb for one in pictures]
    row, column = (
        max(0, length // tile // 2 * tile - side // 2) for length, side in ((height, DETAIL), (width, WIDTH))
    )
    details = [one[row : row + DETAIL, column : column + WIDTH] for one in pictures]
    return np.concatenate([images.contact_sheet(each, columns=2) for each in (whole, details)])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
