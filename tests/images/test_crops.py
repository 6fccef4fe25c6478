"""The photo loader: which picture, which crop of it, and what is passed over."""

import numpy as np
import pytest
from PIL import Image

from images import files
from jnst import images
from jnst.errors import InputError
from jnst.images import Crops, find

SIZE = 16


def _flat(folder, count, size=(20, 24)):
    """Pictures of one color each: number `i` is `20 i + 5` of 255 everywhere."""
    for index in range(count):
        Image.new("RGB", size[::-1], (20 * index + 5,) * 3).save(folder / f"{index}.png")
    return find([folder])


def _which(crops):
    """The numbers of the pictures that crops `[B, S, S, 3]` of flat pictures are of."""
    assert np.ptp(crops, (1, 2, 3)).max() < 1e-6
    return [round((255 * crop[0, 0, 0] - 5) / 20) for crop in crops]


def _slopes(path, height, width):
    """A picture that tells where each pixel was: `10 column` in red, `10 row` in green, of 255."""
    rows, columns = np.mgrid[:height, :width]
    assert max(height, width) <= 26
    Image.fromarray(np.stack([10 * columns, 10 * rows, 0 * rows], -1).astype(np.uint8)).save(path)
    return [path]


def _crops(paths, seed=0, batch=1, **options):
    return Crops(paths, seed=seed, size=SIZE, batch=batch, **options)


@pytest.fixture
def noisy(tmp_path):
    for index in range(5):
        files.write(tmp_path / f"{index}.png", Image.fromarray(files.noise(20 + 9 * index, 40 - 3 * index, 3)))
    return find([tmp_path])


# ---- Which crop


def test_a_batch_is_a_function_of_its_number_alone(noisy):
    first = _crops(noisy, batch=3)
    inorder = [first.batch(index).tobytes() for index in range(8)]
    second = _crops(noisy, batch=3)
    assert {index: second.batch(index).tobytes() for index in (7, 2, 2, 0, 5)} == {
        index: inorder[index] for index in (7, 2, 0, 5)
    }
    assert _crops(noisy, batch=3).batch(6).tobytes() == inorder[6]
    assert len(set(inorder)) == 8


def test_batches_are_float32_images(noisy):
    found = np.concatenate([_crops(noisy, batch=4).batch(index) for index in range(5)])
    assert (found.shape, found.dtype) == ((20, SIZE, SIZE, 3), np.float32)
    assert 0 <= found.min() < 0.05
    assert 0.95 < found.max() <= 1


def test_seeds_differ(noisy):
    assert len({_crops(noisy, seed).batch(0).tobytes() for seed in range(6)}) == 6


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_each_epoch_shows_every_picture_once_in_another_order(tmp_path, batch):
    crops = _crops(_flat(tmp_path, 5), batch=batch)
    shown = sum((_which(crops.batch(index)) for index in range(-(-40 // batch))), [])
    epochs = [shown[start : start + 5] for start in range(0, 40, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 4


def test_a_picture_s_crop_is_another_in_each_epoch(tmp_path):
    crops = _crops(_slopes(tmp_path / "a.png", 24, 26))
    assert len({crops.batch(index).tobytes() for index in range(20)}) > 15


def test_crops_stay_inside_reach_every_place_and_are_mirrored_about_half(tmp_path):
    height, width = 18, 19
    crops = _crops(_slopes(tmp_path / "a.png", height, width), zoom=1)  # each as large as a crop: nothing is resized
    places, mirrored = set(), 0
    for index in range(400):
        red, green, blue = np.moveaxis(np.round(crops.batch(index)[0] * 25.5), -1, 0).astype(int)
        flipped = red[0, 0] > red[0, -1]
        mirrored += flipped
        columns = red[0, ::-1] if flipped else red[0]
        np.testing.assert_array_equal(columns, columns[0] + np.arange(SIZE))
        np.testing.assert_array_equal(green[:, 0], green[0, 0] + np.arange(SIZE))  # never upside down
        assert (red == red[0]).all()
        assert (green == green[:, :1]).all()
        places.add((green[0, 0], columns[0]))
    assert places == {(top, left) for top in range(3) for left in range(4)}
    assert 150 < mirrored < 250


def test_sides_lie_between_the_crop_and_zoom_times_that(tmp_path):
    gradient = np.linspace(0, 255, 80)[:, None].repeat(90, 1)
    Image.fromarray(np.stack([gradient] * 3, -1).astype(np.uint8)).save(tmp_path / "a.png")
    for zoom in (1.0, 1.5, 3.0):
        crops = _crops(find([tmp_path]), zoom=zoom)
        # How steep the gradient is in a crop tells how many rows of the picture it holds.
        steps = [np.diff(crops.batch(index)[0, 4:-4, 0, 0]).mean() * 79 * SIZE for index in range(60)]
        assert SIZE - 1 < min(steps) < SIZE + 3
        assert zoom * SIZE - 5 < max(steps) < zoom * SIZE + 1


@pytest.mark.parametrize("shape", [(5, 7), (9, 40), (1, 1), (16, 16)])
def test_a_small_picture_is_enlarged(tmp_path, shape):
    paths = _flat(tmp_path, 2, shape)
    assert sorted(_which(_crops(paths, batch=2).batch(0))) == [0, 1]


def test_an_enlarged_picture_is_seen_whole(tmp_path):
    values = np.arange(8)[:, None].repeat(8, 1) * 30
    Image.fromarray(np.stack([values] * 3, -1).astype(np.uint8)).save(tmp_path / "a.png")
    crop = 255 * _crops(find([tmp_path])).batch(0)[0, :, 3, 0]
    assert crop[0] < 10
    assert crop[-1] > 200
    assert (np.diff(crop) > 0).sum() > SIZE - 4


def test_what_is_transparent_is_white(tmp_path):
    Image.new("RGBA", (20, 20), (200, 0, 0, 0)).save(tmp_path / "a.png")
    np.testing.assert_allclose(_crops(find([tmp_path])).batch(0), 1)


# ---- Broken files


@pytest.fixture
def troubled(tmp_path):
    paths = _flat(tmp_path, 3)
    files.write(tmp_path / "cut.jpg", Image.effect_noise((64, 64), 50))
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("These are words, and not a picture.\n")
    (tmp_path / "empty.png").write_bytes(b"")
    return paths, find([tmp_path])


def test_broken_files_are_named_once_and_passed_over(troubled):
    _, paths = troubled
    said = []
    crops = _crops(paths, batch=2, warn=said.append)
    shown = [_which(crops.batch(index)) for index in range(12)]
    assert {name for pair in shown for name in pair} == {0, 1, 2}
    assert sorted(line.partition(": ")[0] for line in said) == ["skipped"] * 3
    for name in ("cut.jpg", "empty.png", "text.png"):
        assert sum(name in line for line in said) == 1, said
    # What stands in for a broken file does not depend on when it was found to be broken.
    for index in (11, 4, 0):
        assert _which(_crops(paths, batch=2, warn=said.append).batch(index)) == shown[index]


def test_only_broken_files_are_an_error(troubled):
    good, paths = troubled
    said = []
    crops = _crops([path for path in paths if path not in good], warn=said.append)
    for _ in range(2):
        with pytest.raises(InputError, match="none of 3 pictures can be read"):
            crops.batch(0)
    assert len(said) == 3


def test_a_file_that_vanishes_is_a_broken_one(tmp_path):
    paths = _flat(tmp_path, 2)
    paths[0].unlink()
    said = []
    assert _which(_crops(paths, batch=4, warn=said.append).batch(0)) == [1] * 4
    assert len(said) == 1


# ---- Which files


def test_find_looks_below_and_sorts_and_passes_over_hidden_files_and_unknown_endings(tmp_path):
    names = ["b/z.png", "b/a/x.JPG", "a.tif", "c.jpeg", "b.webp"]
    for name in [*names, "notes.txt", "b/movie.mp4", "png", "b/.hidden.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked into")
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find([tmp_path])] == sorted(names)


def test_find_keeps_the_order_of_folders_and_counts_one_twice_that_is_given_twice(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        _flat(tmp_path / name, 2)
    found = find([tmp_path / "b", str(tmp_path / "a"), tmp_path / "b"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == "b/0.png b/1.png a/0.png a/1.png".split() + [
        "b/0.png",
        "b/1.png",
    ]
    crops = Crops(found, seed=0, size=SIZE, batch=6)
    assert sorted(_which(crops.batch(0))) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("flag", ["photos", "style"])
def test_a_missing_or_an_empty_folder_is_named_with_its_flag(tmp_path, flag):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("words")
    (tmp_path / "photo.png").write_bytes(b"a file")
    for name, words in {
        "nowhere": "no such folder",
        "photo.png": "no such folder",
        "empty": "no picture in this folder",
    }.items():
        with pytest.raises(InputError, match=f"--{flag}=.*{name}: {words}"):
            find([tmp_path / name], *([] if flag == "photos" else [flag]))


def test_an_empty_name_is_no_folder(tmp_path, monkeypatch):
    """`--photos=pictures,` has an empty part, which pathlib takes for the working folder."""
    _flat(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--photos="):
        find([""])


def test_every_kind_of_picture_is_found_and_read(tmp_path):
    for ending in (".png", ".jpg", ".tif", ".webp"):
        images.save(tmp_path / f"a{ending}", images.Picture(np.full((20, 20, 3), 0.4, np.float32)))
    np.testing.assert_allclose(_crops(find([tmp_path]), batch=4).batch(0), 0.4, atol=0.01)


def test_batches_made_ahead_are_the_same_and_none_beyond_the_last():
    made = []

    def source(index):
        made.append(index)
        return np.full(2, index)

    with images.Ahead(source, stop=6, ahead=3, threads=3) as ahead:
        assert [int(ahead(index)[0]) for index in range(2, 6)] == [2, 3, 4, 5]
    assert sorted(made) == [2, 3, 4, 5]


def test_an_error_reaches_who_asks_for_the_batch_not_who_asks_before_it():
    def source(index):
        if index == 1:
            raise InputError("broken")
        return np.zeros(1)

    with images.Ahead(source, stop=3) as ahead:
        ahead(0)
        with pytest.raises(InputError, match="broken"):
            ahead(1)
