import base64
import html
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from images.files import smooth

from jnst import images
from jnst.cli import page

AXES = [("style_weight", ["1e2", "1e3", "1e10"]), ("style", ["starry", "wave"]), ("seed", ["0", "1"])]
LOSSES = ["total loss", "content loss", "style loss", "tv loss"]
STRANGE = "a'b\"<script>oops()</script> & c%20#?.png"


def picture(kind="JPEG"):
    return images.encode(images.Picture(smooth(12, 16)), kind)


def cell(**changes):
    """A finished run."""
    trace = [{"step": step, "total": 9e3 / step, "content": 50.0, "style": 8e3 / step, "tv": 0.0} for step in (1, 2, 4)]
    finished = {
        "name": "00_a=1",
        "settings": ("1",),
        "status": "",
        "picture": "00_a=1.png",
        "flags": "--a=1\n",
        "terms": trace[-1],
        "seconds": 1.5,
        "trace": trace,
        "thumbnail": picture(),
        "losses": (50.0, 0.002),
        "on_front": True,
    }
    return page.Cell(**finished | changes)


NOT_YET = {"picture": "", "flags": "", "terms": {}, "seconds": None, "trace": [], "thumbnail": b"", "losses": None}
NOT_YET |= {"status": "not yet", "on_front": False}


def cells(axes=AXES, **changes):
    """Finished runs, each with a total of its own; `changes` are lists by cell."""
    found = []
    for number, settings in enumerate(itertools.product(*(values for _, values in axes))):
        name = "_".join(
            [f"{number:02d}", *(f"{axis}={value}" for (axis, _), value in zip(axes, settings, strict=True))]
        )
        total = 1000.0 * ((number * 7) % 12 + 1)
        mine = {"name": name, "settings": settings, "picture": f"{name}.png", "terms": {"total": total, "content": 5.0}}
        found.append(cell(**mine | {key: values[number] for key, values in changes.items()}))
    return found


def rendered(axes, runs, sheet=b"", **options):
    return page.render("A grid", axes, runs, sheet, **{"command": "bin/grid --grid=a", **options})


class Tree(HTMLParser):
    """Elements as [tag, attributes, text, parents]; complains of what is not closed in order."""

    VOID = {"meta", "img", "input", "link", "br", "hr", "wbr"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag}: an attribute twice"
        self.elements.append((tag, dict(attributes), [], list(self.open)))
        if tag not in self.VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), [], list(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag, within=None, **attributes):
        """Elements with this tag and these attributes, as (attributes, text)."""
        return [
            (found, "".join(text).strip())
            for name, found, text, parents in self.elements
            if name == tag
            and all(found.get(key.strip("_")) == value for key, value in attributes.items())
            and (within is None or any(parent[1].get("id") == within for parent in parents))
        ]


# ---- front


def test_front_is_what_no_other_point_dominates():
    draw = random.Random(0)
    for size in (0, 1, 5, 60):
        points = [(draw.randrange(12), draw.randrange(12)) if draw.random() < 0.9 else None for _ in range(size)]
        known = [point for point in points if point is not None]
        expected = [
            one is not None and not any(a <= one[0] and b <= one[1] and (a, b) != one for a, b in known)
            for one in points
        ]
        assert page.front(points) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_front_leaves_out_what_is_not_finite(bad):
    assert page.front([(bad, 0.0), (1.0, 1.0), (0.0, bad), None]) == [False, True, False, False]


# ---- the text


@pytest.mark.slow
@pytest.mark.parametrize(
    "counts", [(1,), (4,), (500,), (3, 2), (3, 2, 2), (2, 2, 2, 2, 2), (1, 1, 1, 1, 1), (12, 5), ()], ids=str
)
def test_holds_for_any_grid(counts):
    axes = [(name, [f"{name}{value}" for value in range(count)]) for name, count in zip("abcde", counts, strict=False)]
    tree = Tree(rendered(axes, cells(axes)))
    total = math.prod(counts)
    rows = tree.all("tr", within="runs")
    assert len(rows) == total + 1
    columns = ["run", *"abcde"[: len(counts)], "★", *LOSSES, "seconds", "picture", "flags"]
    assert [text for _, text in tree.all("th", within="runs", scope="col")] == columns
    thumbs = [found for found, _ in tree.all("td") if "data-run" in found]
    assert sorted(int(found["data-run"]) for found in thumbs) == list(range(total))
    assert len(tree.all("table", class_="thumbs")) == math.prod(counts[2:])
    assert f"{total} of {total} runs finished" in [text for _, text in tree.all("p")]


def test_thumbnails_stand_as_on_the_sheet():
    tree = Tree(rendered(AXES, cells()))
    assert [text for _, text in tree.all("caption")] == ["seed=0", "seed=1"]
    heads = [text for name, found, text, parents in tree.elements if name == "th" and parents[-2][0] == "thead"]
    assert ["".join(text) for text in heads[:3]] == ["style_weight=1e2", "style_weight=1e3", "style_weight=1e10"]
    order = [int(found["data-run"]) for found, _ in tree.all("td") if "data-run" in found]
    expected = [column * 4 + row * 2 + one for one in range(2) for row in range(2) for column in range(3)]
    assert order == expected


def test_equal_arguments_give_equal_text():
    assert rendered(AXES, cells(), picture("PNG")) == rendered(AXES, cells(), picture("PNG"))


def test_the_page_says_what_wrote_it():
    ((found, _),) = Tree(rendered(AXES, cells())).all("meta", name="generator")
    assert found["content"] == "jnst grid"  # by which a later grid knows that it may replace it


@pytest.mark.parametrize("count", [11, 13])
def test_as_many_cells_as_combinations(count):
    with pytest.raises(ValueError, match=f"{count} cells for a grid of 3 x 2 x 2"):
        rendered(AXES, (cells() * 2)[:count])


def test_nothing_is_fetched():
    text = rendered(AXES, cells(), picture("PNG"))
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w", re.sub(r"base64,[\w+/=]*", "", text))
    tree = Tree(text)
    for tag, found, _, _ in tree.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not {"srcset", "data", "action", "onclick"} & found.keys()
        if "src" in found:
            assert tag == "img"
            assert found["src"].startswith("data:image/")
    names = {f"{one.name}.{ending}" for one in cells() for ending in ("png", "flags")}
    assert {unquote(found["href"]) for _, found, _, _ in tree.elements if "href" in found} == names
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(("kind", "shown"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_the_sheet_is_inside(kind, shown):
    (found, _) = Tree(rendered(AXES, cells(), picture(kind))).all("img", alt="Contact sheet")[0]
    head, _, body = found["src"].partition(",")
    assert head == f"data:{shown};base64"
    assert base64.b64decode(body) == picture(kind)
    assert not Tree(rendered(AXES, cells())).all("img", alt="Contact sheet")


def test_what_users_write_stays_text():
    axes = [(STRANGE, [STRANGE])]
    run = cell(name=STRANGE, settings=(STRANGE,), status=STRANGE, picture=STRANGE, flags=STRANGE)
    text = page.render(STRANGE, axes, [run], b"", command=STRANGE, notes=[STRANGE])
    tree = Tree(text)
    assert len(tree.all("script")) == 1
    assert tree.all("title")[0][1] == tree.all("h1")[0][1] == tree.all("li")[0][1] == STRANGE
    assert tree.all("pre", id="command")[0][1] == tree.all("pre", within="flags-0")[0][1] == STRANGE
    links = {found["href"] for found, _ in tree.all("a")}
    assert {unquote(link) for link in links} == {STRANGE, f"{STRANGE}.flags"}
    assert not any(set(link) & set("<>&\"'#? ") for link in links)


def test_names_that_are_no_text_do_not_stop_it():
    name = b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    text = rendered([("a", [name])], [cell(name=name, settings=(name,), picture=name)])
    text.encode()
    assert 'href="%FF%FE.png"' in text


def test_runs_that_are_not_there_are_gray_and_say_why():
    runs = cells(status=["", "not yet", "diverged at step 12", *[""] * 9])
    runs[1] = cell(name="01", settings=runs[1].settings, **NOT_YET)
    tree = Tree(rendered(AXES, runs))
    gray = tree.all("td", class_="unfinished")
    assert [(found["data-run"], text) for found, text in gray] == [("1", "not yet")]
    assert [text for found, text in tree.all("td") if found.get("data-run") == "2"][0].startswith("diverged at step 12")
    assert tree.all("p", id="progress")[0][1] == "10 of 12 runs finished"
    assert not tree.all("dialog", id="flags-1")
    assert not tree.all("polyline", data_run="1")


def test_nothing_yet_at_all():
    text = rendered([("a", ["1", "2"])], [cell(settings=("1",), **NOT_YET), cell(settings=("2",), **NOT_YET)])
    assert "No curves yet" in text
    assert "No losses yet" in text
    assert not Tree(text).all("svg")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, 1e308, -1e308, 5e-324, 0.0, -3.0, 1e300])
def test_no_number_breaks_it(value):
    trace = [{"step": 1, "total": value, "content": 1.0}, {"step": 2, "total": 2.0, "content": value, "tv": value}]
    changes = {"terms": {"total": value}, "seconds": value, "trace": trace, "losses": (1.0, value), "on_front": False}
    if value is None:
        changes["losses"] = None
    for other in (cell(settings=("2",)), cell(settings=("2",), **changes)):
        tree = Tree(rendered([("a", ["1", "2"])], [cell(**changes), other]))
        for tag, found, _, _ in tree.elements:
            if tag in ("polyline", "circle", "line", "text"):
                shown = " ".join(
                    str(found[key]) for key in ("points", "cx", "cy", "x1", "y1", "x", "y") if key in found
                )
                assert all(math.isfinite(float(part)) for part in re.split("[ ,]", shown) if part), (tag, found)


def test_numbers_have_four_digits_and_sort_by_all_of_them():
    run = cell(terms={"total": 123456.789, "content": 0.00012345678, "style": math.inf}, seconds=7.0)
    amounts = Tree(rendered([("a", ["1"])], [run])).all("td", class_="amount")
    assert [text for _, text in amounts] == ["1.235e+05", "0.0001235", "inf", "", "7"]
    assert [found["data-sort"] for found, _ in amounts] == ["123456.789", "0.00012345678", "", "", "7.0"]


# ---- charts


def points(text):
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_every_run_has_a_curve_for_each_term():
    runs = cells()
    tree = Tree(rendered(AXES, runs))
    assert [found["id"] for found, _ in tree.all("input")] == [f"show-{t}" for t in ("total", "content", "style", "tv")]
    assert ["checked" in found for found, _ in tree.all("input")] == [True, False, False, False]
    curves = [found for found, _ in tree.all("polyline") if "data-run" in found]
    assert len(curves) == 4 * len(runs)
    assert [found["class"] for found in curves[:12]] == [f"curve c{number // 4}" for number in range(12)]


def test_curves_are_logarithmic_where_all_is_positive_and_linear_elsewhere():
    curves = Tree(rendered([("a", ["1"])], [cell()])).all("polyline", class_="curve cnone")
    total, *_, tv = (points(found["points"]) for found, _ in curves)
    assert [x for x, _ in total] == pytest.approx([62, 208, 500], abs=0.06)  # steps 1, 2, 4
    assert total[1][1] - total[0][1] == pytest.approx(total[2][1] - total[1][1], abs=0.11)  # halved each time
    assert total[0][1] < total[2][1]
    assert len({y for _, y in tv}) == 1
    trace = [{"step": step, "total": value} for step, value in ((0, -1.0), (1, 1.0), (2, 3.0))]
    ((found, _),) = Tree(rendered([("a", ["1"])], [cell(trace=trace)])).all("polyline", class_="curve cnone")
    low, middle, high = (y for _, y in points(found["points"]))
    assert low - middle == pytest.approx(middle - high, abs=0.11)


def test_a_diverged_run_does_not_press_the_others_flat():
    wild = [{"step": step, "total": value} for step, value in ((1, 5000.0), (2, 1e30), (3, -1e30), (4, 5000.0))]
    runs = [cell(settings=("1",)), cell(settings=("2",), trace=wild, status="diverged at step 5")]
    tree = Tree(rendered([("a", ["1", "2"])], runs))
    calm, wild = (points(tree.all("polyline", class_=f"curve c{color}")[0][0]["points"]) for color in (0, 1))
    assert min(y for _, y in calm) < 30
    assert max(y for _, y in calm) > 270
    assert [y for _, y in wild][1:3] == [10, 288]
    assert 10 < wild[0][1] == wild[3][1] < 288
    note = "The scale is that of the finished runs."
    assert [text for _, text in tree.all("figcaption")].count(note) == 1
    assert note not in rendered([("a", ["1"])], [cell()])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((1.0, 1e6), ["1e0", "1e1", "1e2", "1e3", "1e4", "1e5", "1e6"]),
        ((1e-12, 1e12), ["1e-12", "1e-8", "1e-4", "1e0", "1e4", "1e8", "1e12"]),
        ((30.0, 400.0), ["50", "100", "200"]),
        ((20000.0, 26000.0), ["20000", "22000", "24000", "26000"]),
        ((0.0, 10.0), ["0", "2", "4", "6", "8", "10"]),
        ((-1.0, 1.0), ["-1", "-0.5", "0", "0.5", "1"]),
        ((5e-7, 4e-6), ["5e-7", "1e-6", "2e-6"]),
    ],
)
def test_ticks_are_round(values, labels):
    axis = page._Axis.of(values, 0, 100)
    assert [label for _, label in axis.ticks] == labels
    places = [float(place) for place, _ in axis.ticks]
    assert places == sorted(places)
    assert -1e-9 <= places[0] < places[-1] <= 100
    for place, label in axis.ticks:
        assert float(axis(float(label))) == pytest.approx(float(place), abs=0.11)


@pytest.mark.parametrize("values", [(7.0, 7.0), (0.0, 0.0), (-2.0, -2.0), (1.0, 1 + 1e-15), (123456.1, 123456.4)])
def test_ticks_of_values_that_are_nearly_one(values):
    ticks = page._Axis.of(values, 0, 100).ticks
    assert 2 <= len(ticks) <= 8
    assert len({label for _, label in ticks}) == len(ticks)


def test_long_curves_are_thinned_but_keep_their_ends_and_spikes():
    curve = [(step, 1.0 + step % 2) for step in range(10_000)]
    curve[5003], curve[7777] = (5003, 99.0), (7777, -99.0)
    thinned = page._thinned(curve, 100)
    assert 90 <= len(thinned) <= 100
    assert {curve[0], curve[-1], curve[5003], curve[7777]} <= set(thinned)
    assert thinned == sorted(thinned)
    assert page._thinned(curve[:100], 100) == curve[:100]


@pytest.mark.slow
def test_five_hundred_long_runs_stay_a_page_that_can_be_opened():
    trace = [{"step": s, "total": 1e5 / s, "content": 9.0 + s, "style": 1e4 / s, "tv": s / 7} for s in range(1, 1001)]
    axes = [("seed", [str(seed) for seed in range(500)])]
    text = rendered(axes, cells(axes, trace=[trace] * 500))
    assert len(text) < 8e6
    assert text.count("<polyline") == 4 * 500 + 1


def test_the_front_is_marked_and_joined():
    losses = [(1.0, 8.0), (2.0, 4.0), (4.0, 4.0), (4.0, 2.0), None, (math.nan, 1.0)]
    axes = [("seed", list("012345"))]
    runs = cells(axes, losses=losses, on_front=page.front(losses))
    tree = Tree(rendered(axes, runs))
    drawn = {found["data-run"]: found for found, _ in tree.all("circle")}
    assert sorted(drawn) == list("0123")
    assert [run for run, found in drawn.items() if "best" in found["class"].split()] == ["0", "1", "3"]
    ((joined, _),) = tree.all("polyline", class_="front")
    assert points(joined["points"]) == [(float(drawn[run]["cx"]), float(drawn[run]["cy"])) for run in "013"]
    xs = [float(drawn[run]["cx"]) for run in "013"]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)  # doubled each time
    assert float(drawn["3"]["cy"]) > float(drawn["2"]["cy"]) == float(drawn["1"]["cy"])
    stars = [text for found, text in tree.all("td") if found.get("class") == "star"]
    assert stars == ["★", "★", "", "★", "", ""]


def test_what_is_measured_otherwise_has_a_front_of_its_own():
    losses, measures = [(1.0, 2.0), (10.0, 30.0), (2.0, 1.0), (20.0, 10.0)], [0, 1, 0, 1]
    axes = [("seed", list("0123"))]
    tree = Tree(rendered(axes, cells(axes, losses=losses, on_front=[True] * 4, measure=measures)))
    drawn = {found["data-run"]: (float(found["cx"]), float(found["cy"])) for found, _ in tree.all("circle")}
    joined = [points(found["points"]) for found, _ in tree.all("polyline", class_="front")]
    assert joined == [[drawn["0"], drawn["2"]], [drawn["1"], drawn["3"]]]


# ---- in a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BEFORE = """<script>
window.errors = [];
Object.defineProperty(navigator, "clipboard", {value: {writeText: async text => { window.copied = text; }}});
window.addEventListener("error", event => errors.push(event.message));
window.addEventListener("unhandledrejection", event => errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", event => errors.push(event.violatedDirective));
</script>"""
AFTER = """<script>
const found = {};
const order = () => [...document.querySelectorAll("#runs tbody tr")].map(row => Number(row.dataset.run));
const heads = [...document.querySelectorAll("#runs thead th")];
found.before = order();
for (const head of heads) {
  const name = head.textContent;
  const sorted = found["by " + name] = [];
  for (let time = 0; time < 2; time++) {
    head.querySelector("button").click();
    const marks = heads.map(other => other.getAttribute("aria-sort")).filter(Boolean);
    sorted.push([order(), marks, head.getAttribute("aria-sort")]);
  }
}
const hot = () => [...document.querySelectorAll(".hot")].map(one => [one.tagName.toLowerCase(), one.dataset.run]);
const over = selector => {
  document.querySelector(selector).dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
  return [hot(), document.getElementById("said").textContent];
};
found.thumb = over(".thumbs [data-run='3'] img");
found.row = over("#runs [data-run='5'] td");
found.curve = over("svg [data-run='7']");
found.nothing = over("h1");
const figures = [...document.querySelectorAll(".curves figure")];
const shown = () => figures.filter(one => one.offsetHeight > 0).map(one => one.className);
found.terms = [shown()];
for (const label of document.querySelectorAll(".curves label")) {
  label.click();
  found.terms.push(shown());
}
const dialog = document.getElementById("flags-2");
const seen = () => [dialog.checkVisibility(), dialog.matches(":popover-open")];
found.dialog = [seen()];
document.querySelector("[popovertarget='flags-2']").click();
found.dialog.push(seen());
dialog.querySelector("button").click();
found.dialog.push(seen());
for (const one of document.querySelectorAll("details")) one.open = true;
for (const one of document.images) one.loading = "eager";
const copy = document.getElementById("copy");
found.copy = [!copy.hidden];
copy.click();
// By then pictures are there, and --dump-dom waits for it.
addEventListener("load", () => {
  found.copy.push(copy.textContent, window.copied);
  found.sizes = [...document.images].map(one => one.naturalWidth);
  const fetched = performance.getEntriesByType("resource").map(one => one.name);
  found.fetched = fetched.filter(name => !name.startsWith("data:"));
  found.wide = document.documentElement.scrollWidth > innerWidth;
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify({...found, errors});
  document.body.append(result);
});
</script>"""


def chromium(folder, path, *options):
    """Runs Chromium on a file; what it prints."""
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--no-sandbox", f"--user-data-dir={folder / 'profile'}"]
    command = [CHROMIUM, "--headless", *quiet, *options, path.as_uri()]
    home = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(command, capture_output=True, timeout=120, cwd=folder, env=home).stdout.decode()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a browser makes of the page of a 3 x 2 x 2 grid, one of its runs missing."""
    if CHROMIUM is None:
        pytest.skip("needs a browser: chromium, chromium-browser or google-chrome on the path")
    folder = tmp_path_factory.mktemp("page")
    (folder / "try.html").write_text("<p>it opens")
    if "<p>it opens" not in chromium(folder, folder / "try.html", "--dump-dom"):
        pytest.skip(f"needs a browser that opens files of temporary folders; {CHROMIUM} does not")
    runs = cells(seconds=[None, *(1.0 / number for number in range(1, 12))])
    runs[4] = cell(name="04", settings=runs[4].settings, **NOT_YET)
    text = rendered(AXES, runs, picture("PNG"))
    path = folder / "a # page?.html"
    path.write_text(text.replace("<head>", f"<head>{BEFORE}", 1).replace("</body>", f"{AFTER}</body>", 1), "utf-8")
    dumped = chromium(folder, path, "--dump-dom", "--window-size=600,900")
    return json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dumped, re.S)[1]))


def expected_order(keys):
    """Up and down by `keys`, None last."""
    known = [number for number, key in enumerate(keys) if key is not None]
    missing = [number for number, key in enumerate(keys) if key is None]
    up = sorted(known, key=lambda number: keys[number])
    down = sorted(known, key=lambda number: keys[number], reverse=True)
    return [up + missing, down + missing]


def test_browser_reports_no_error_and_fetches_nothing(seen):
    assert seen["errors"] == []
    assert seen["fetched"] == []
    assert not seen["wide"], "the page scrolls sideways"
    assert set(seen["sizes"]) == {16}
    assert len(seen["sizes"]) == 12  # a picture is missing, the sheet is one more
    assert seen["copy"] == [True, "copied", "bin/grid --grid=a"]


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("run", list(range(12))),
        ("style_weight", [100.0] * 4 + [1e3] * 4 + [1e10] * 4),
        ("style", [number // 2 % 2 for number in range(12)]),
        ("seed", [number % 2 for number in range(12)]),
        ("total loss", [None if number == 4 else (number * 7) % 12 for number in range(12)]),
        ("seconds", [None if number in (0, 4) else 1 / number for number in range(12)]),
        ("★", [number == 4 for number in range(12)]),
        ("tv loss", [None] * 12),
    ],
)
def test_browser_sorts_by_a_click_and_the_other_way_by_another(seen, column, keys):
    assert seen["before"] == list(range(12))
    clicked = seen[f"by {column}"]
    orders = expected_order(keys)
    assert [order for order, *_ in clicked] == orders
    assert [marks for _, *marks in clicked] == [[["ascending"], "ascending"], [["descending"], "descending"]]


def test_browser_lights_a_run_wherever_it_stands(seen):
    for where, run in (("thumb", "3"), ("row", "5"), ("curve", "7")):
        hot, said = seen[where]
        assert sorted(hot) == sorted([["td", run], ["tr", run], ["circle", run], *[["polyline", run]] * 4])
        assert said == cells()[int(run)].name
    assert seen["nothing"] == [[], ""]


def test_browser_shows_one_term_and_a_flagfile_when_asked(seen):
    assert seen["terms"] == [["of-total"], ["of-total"], ["of-content"], ["of-style"], ["of-tv"]]
    assert seen["dialog"] == [[False, False], [True, True], [False, False]]


@pytest.mark.parametrize(("scheme", "options"), [("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])])
def test_browser_draws_it_in_both_schemes(seen, tmp_path, scheme, options):
    path = tmp_path / "page.html"
    path.write_text(rendered(AXES, cells(), picture("PNG")), "utf-8")
    chromium(tmp_path, path, "--window-size=800,600", f"--screenshot={tmp_path / 'shot.png'}", *options)
    shot = images.load(str(tmp_path / "shot.png")).rgb
    paper = shot[5, 5]
    assert (paper.min() > 0.9) if scheme == "light" else (paper.max() < 0.2)
    assert abs(shot.mean(-1) - paper.mean()).max() > 0.6, "nothing legible on it"
