"""The index of a folder: what is looked at again and what is not, what breaks it and what does not."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from jnst import embedding_index as index
from jnst import images
from jnst.errors import InputError
from jnst.images import Picture

SIDE = 8
FACTS = {"weights": "abc", "layers": ("relu1_1",)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JNST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """Three pictures, one below."""
    path = tmp_path / "pictures"
    (path / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png")):
        paint(path / name, seed)
    return path


def paint(path, seed, size=(12, 9)):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


class Describer:
    """The mean color as a descriptor; remembers which pictures it was shown."""

    def __init__(self):
        self.shown = 0

    def __call__(self, block):
        assert block.shape == (index.BATCH, SIDE, SIDE, 3)
        self.shown += int(block.any((1, 2, 3)).sum())
        return block.mean((1, 2))


def update(folder, describe=None, **options):
    return index.update(folder, FACTS, describe or Describer(), side=SIDE, **options)


def same(first, second):
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name].features, second[name].features)
        np.testing.assert_array_equal(first[name].pixels, second[name].pixels)
        assert first[name].sha256 == second[name].sha256


def test_the_first_time_everything_is_looked_at_and_then_nothing(folder, cache):
    describe = Describer()
    first = update(folder, describe)
    assert (list(first.entries), first.described, describe.shown) == (["a.png", "b.png", "sub/c.png"], 3, 3)
    before = index.path_of(folder, {**FACTS, "side": SIDE}).stat()
    second = update(folder, describe)
    assert (second.described, describe.shown) == (0, 3)
    same(first.entries, second.entries)
    assert index.path_of(folder, {**FACTS, "side": SIDE}).stat().st_mtime_ns == before.st_mtime_ns
    assert sorted(path.name for path in folder.rglob("*")) == ["a.png", "b.png", "c.png", "sub"]


def test_what_a_killed_process_left_of_the_index_goes(folder, cache):
    path = index.path_of(folder, {**FACTS, "side": SIDE})
    left = path.with_name(f".{path.name[:50]}.abcdefgh.part")
    left.mkdir(parents=True)
    (left / ".tmpAbCdEf").write_bytes(b"half")
    update(folder)
    assert sorted(os.listdir(path.parent)) == sorted([path.name, f"{path.name}.lock"])


def test_what_is_kept_is_the_square_and_its_thumbnail(folder, cache):
    entry = update(folder).entries["a.png"]
    picture = images.load(folder / "a.png")
    middle = picture.rgb[1:10]  # 12 rows, 9 columns
    expected = images.resize(Picture(middle), (SIDE, SIDE)).rgb
    np.testing.assert_allclose(entry.features, expected.mean((0, 1)), atol=1e-6)
    small = images.resize(Picture(middle), (index.PIXELS, index.PIXELS)).rgb
    np.testing.assert_array_equal(entry.pixels, np.rint(255 * small).astype(np.uint8))


def test_a_changed_picture_alone_is_looked_at_again(folder, cache):
    first = update(folder).entries
    paint(folder / "b.png", 77)
    found = update(folder)
    assert found.described == 1
    assert not np.array_equal(found.entries["b.png"].features, first["b.png"].features)
    np.testing.assert_array_equal(found.entries["a.png"].features, first["a.png"].features)


def test_a_picture_of_the_same_size_and_another_time_is_seen_to_have_changed(folder, cache):
    for name, color in (("x.bmp", 10), ("y.bmp", 200)):
        Image.fromarray(np.full((6, 6, 3), color, np.uint8)).save(folder / name)
    first = update(folder).entries
    stat = (folder / "x.bmp").stat()
    (folder / "x.bmp").write_bytes((folder / "y.bmp").read_bytes())
    os.utime(folder / "x.bmp", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    found = update(folder).entries
    assert found["x.bmp"].size == first["x.bmp"].size
    np.testing.assert_array_equal(found["x.bmp"].features, first["y.bmp"].features)


def test_a_touched_or_renamed_picture_is_not_looked_at_again(folder, cache):
    first = update(folder).entries
    os.utime(folder / "a.png", ns=(1, 2_000_000_000))
    (folder / "b.png").rename(folder / "z.png")
    describe = Describer()
    found = update(folder, describe)
    assert (found.described, describe.shown) == (0, 0)
    np.testing.assert_array_equal(found.entries["z.png"].features, first["b.png"].features)
    assert found.entries["a.png"].changed == 2_000_000_000
    assert index.read(index.path_of(folder, {**FACTS, "side": SIDE})).keys() == {"a.png", "sub/c.png", "z.png"}


def test_added_and_removed_pictures(folder, cache):
    update(folder)
    (folder / "a.png").unlink()
    paint(folder / "new.jpg", 5)
    found = update(folder)
    assert (list(found.entries), found.described) == (["b.png", "new.jpg", "sub/c.png"], 1)
    same(update(folder).entries, found.entries)


def test_other_weights_layers_or_sizes_have_an_index_of_their_own(folder, tmp_path):
    paths = {
        index.path_of(place, facts)
        for place in (folder, tmp_path)
        for facts in (FACTS, {**FACTS, "weights": "abd"}, {**FACTS, "layers": ("relu1_2",)}, {**FACTS, "side": 9})
    }
    assert len(paths) == 8
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert index.path_of(link, FACTS) == index.path_of(folder, FACTS)


def flip(data):
    data[-40] ^= 255
    return data


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "no header": lambda data: b"\xff" * 64,
    "a flipped bit": flip,
    "text": lambda data: b"hello",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_index_is_made_again(folder, cache, damage):
    first = update(folder).entries
    path = index.path_of(folder, {**FACTS, "side": SIDE})
    path.write_bytes(bytes(damage(bytearray(path.read_bytes()))))
    assert index.read(path) == {}
    found = update(folder)
    assert found.described == 3
    same(found.entries, first)
    assert len(index.read(path)) == 3


def test_broken_files_are_named_and_left_out(folder, cache):
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:100])
    said = []
    found = update(folder, warn=said.append)
    assert list(found.entries) == ["a.png", "b.png", "sub/c.png"]
    assert len(said) == 2
    assert all(line.startswith(f"skipped: {folder}") for line in said)
    again = []
    assert update(folder, warn=again.append).described == 0
    assert again == said


def test_a_folder_of_broken_files_is_an_error(tmp_path, cache):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="--calibrate=.*none of 1 pictures can be read"):
        update(tmp_path / "bad", flag="calibrate", warn=lambda line: None)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_no_folder_and_no_picture_are_errors(tmp_path, cache, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"--pictures=.*{name}: no"):
        update(tmp_path / name)


def test_what_was_described_before_a_stop_is_kept(tmp_path, cache):
    folder, count = tmp_path / "many", index.BATCH + 5
    folder.mkdir()
    for seed in range(count):
        paint(folder / f"{seed:03}.png", seed, (4, 4))
    told = []

    def stop(done, total):
        told.append((done, total))
        return done > 0

    found = update(folder, progress=stop)
    assert told == [(0, count), (index.BATCH, count)]
    assert (found.stopped, found.described, len(found.entries)) == (True, index.BATCH, index.BATCH)
    rest = update(folder)
    assert (rest.stopped, rest.described, len(rest.entries)) == (False, 5, count)


def test_a_stop_before_the_first_batch_looks_at_nothing(folder, cache):
    describe = Describer()
    found = update(folder, describe, progress=lambda done, total: True)
    assert (found.stopped, found.described, describe.shown) == (True, 0, 0)


def test_an_index_that_cannot_be_written_is_said_once_and_does_no_harm(folder, cache):
    cache.write_text("a file where the folder should be")
    said = []
    found = update(folder, warn=said.append)
    assert len(found.entries) == 3
    assert len(said) == 1
    assert said[0].startswith("no index is kept: ")


def test_several_at_once_leave_a_whole_index(folder, cache):
    for seed in range(20):
        paint(folder / f"more{seed}.png", 100 + seed, (4, 4))
    found, errors = [], []

    def work():
        try:
            found.append(update(folder).entries)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for entries in found:
        same(entries, found[0])
    assert index.read(index.path_of(folder, {**FACTS, "side": SIDE})).keys() == found[0].keys()


def test_what_another_has_found_meanwhile_is_kept(folder, cache):
    """One is stopped early while the other finishes: the finished part stays."""
    whole = {}

    def stop(done, total):
        whole.update(update(folder).entries)  # the other, from beginning to end
        return True

    update(folder, progress=stop)
    assert update(folder).described == 0
    assert len(whole) == 3


def test_a_name_that_is_no_text_is_kept(folder, cache):
    try:
        paint(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"), 9)
    except OSError:
        pytest.skip("this file system takes text only")
    first = update(folder)
    assert len(first.entries) == 4
    assert update(folder).described == 0
