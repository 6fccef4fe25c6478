"""The bundled backbone: what is in its file, and that it sees what VGG-19 sees."""

import io
import json
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from PIL import Image

import jnst
from jnst import files, heads, images, weights
from jnst.config import BLOCKS, CONVOLUTIONS, StylizeConfig, parse_layers
from jnst.nets import vgg

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "weights" / "mini.safetensors"


def _arithmetic(widths, depth):
    """Multiplications for each pixel of the input."""
    total, channels = 0.0, 3
    for name in CONVOLUTIONS[:depth]:
        width = widths[int(name[4]) - 1]
        total += 9 * channels * width / 4 ** (int(name[4]) - 1)
        channels = width
    return total


def test_the_file_is_small_and_says_what_it_is():
    assert FILE.stat().st_size <= 3 * 2**20
    with safetensors.safe_open(FILE, "np") as file:
        facts = json.loads(file.metadata()["jnst"])
        kinds = {str(file.get_slice(name).get_dtype()) for name in file.keys() if name != "mean"}
    assert kinds == {"F16"}
    assert facts["layers"] == list(CONVOLUTIONS[:13])
    assert "Simonyan" in facts["origin"]
    assert "Wang" in facts["origin"]
    assert "CC BY 4.0" in facts["licence"]


def test_it_costs_a_sixteenth_of_vgg19():
    backbone = weights.load("mini")
    widths = [backbone.params[f"conv{block}_1"]["kernel"].shape[-1] for block in range(1, len(BLOCKS) + 1)]
    assert _arithmetic(widths, 13) <= _arithmetic((64, 128, 256, 512, 512), 16) / 16


def test_its_hash_stands_in_the_readme_beside_it():
    digest = files.sha256_of(FILE)
    assert digest in (ROOT / "weights" / "README.md").read_text()


def test_it_is_the_default_and_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert StylizeConfig().weights == "mini"
    assert weights.load("mini").sha256 == files.sha256_of(FILE)


def test_it_has_the_default_layers():
    backbone = weights.load("mini")
    for flag in ("content_layers", "style_layers"):
        backbone.require(flag, parse_layers(flag, getattr(StylizeConfig(), flag))[0])


@pytest.mark.slow
def test_no_layer_is_dead_or_loud():
    """On a drawn picture that no network was trained on."""
    picture = images.resize(images.load("harbor"), (96, 72))
    backbone = weights.load("mini")
    layers = tuple("relu" + name[4:] for name in backbone.convolutions)
    params = jax.tree.map(jnp.asarray, dict(backbone.params))
    how = {"pooling": "avg", "padding": backbone.padding}
    found = jax.jit(lambda image: vgg.features(params, image, layers, **how))(picture.rgb)
    for layer, maps in found.items():
        assert np.isfinite(maps).all(), layer
        awake = (np.asarray(maps).max((0, 1)) > 0).mean()
        assert awake > 0.5, layer


@pytest.mark.slow
def test_defaults_paint():
    result = jnst.stylize("harbor", "strokes", size=128, steps=40)
    assert result.trace[-1]["style"] < 0.1 * result.trace[0]["style"]


def _archived(path, folder, count):
    """Every so many pictures of a folder in an archive."""
    with tarfile.open(path) as archive:
        names = sorted(name for name in archive.getnames() if f"/{folder}/" in name and name.endswith(".jpg"))
        for name in names[:: len(names) // count][:count]:
            with Image.open(io.BytesIO(archive.extractfile(name).read())) as picture:
                yield jnp.asarray(np.asarray(picture.convert("RGB"), np.float32) / 255)


@pytest.mark.slow
def test_gram_matrices_are_those_of_the_real_vgg19(shared):
    """Heads fitted on photos and paintings that it was trained on, scored on those of folders it never saw."""
    pictures = shared / "data" / "monet2photo_1500.tar.gz"
    real = weights.load(str(shared / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz"))
    mini = weights.load("mini")
    layers = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1")

    @jax.jit
    def look(image):
        both = []
        for backbone, pooling in ((mini, "avg"), (real, "max")):
            names = ("mean", *vgg.convolutions(layers))
            params = jax.tree.map(jnp.asarray, {name: backbone.params[name] for name in names})
            both.append(vgg.features(params, image, layers, pooling=pooling, padding=backbone.padding))
        return both

    total = {}
    for picture in (*_archived(pictures, "trainB", 24), *_archived(pictures, "trainA", 12)):
        own, theirs = look(picture)
        for layer in layers:
            found = heads.moments(own[layer], theirs[layer])
            total[layer] = jax.tree.map(jnp.add, total[layer], found) if layer in total else found
    fitted = {layer: heads.fit(found) for layer, found in total.items()}
    score = jax.jit(lambda image: heads.score(*look(image), fitted))
    scores = [score(picture) for folder in ("testA", "testB") for picture in _archived(pictures, folder, 12)]
    for layer in layers:
        cosine = np.mean([float(each[layer][1]) for each in scores])
        assert cosine >= 0.95, f"{layer}: {cosine:.3f}"
