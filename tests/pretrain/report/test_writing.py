"""The page: well-formed, whole in itself, escaped, and only with what there is."""

import importlib.util
import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from skysense.pretrain.report import Pictures, write_report

EMPTY = {"img", "meta"}
ONE_LINE = ({"step": 10, "lr": 3.0},)

needs_matplotlib = pytest.mark.skipif(
    not importlib.util.find_spec("matplotlib"),
    reason="matplotlib, the extra `plots`, is not installed",
)


class Page(HTMLParser):
    """Reads a page; every tag is closed in turn."""

    def __init__(self, path):
        super().__init__()
        self.open, self.titles, self.images, self.tags, self.text = [], [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


@pytest.fixture
def everything(neighbors, attention):
    experts = {"s2": np.full((2, 4), 0.25), "s1": np.eye(4)[:1]}
    profile = [("aten::<mm>", 0.2), ("aten::<mm>", 0.1), ("copy", 0.05)]
    return Pictures(neighbors(), attention(), experts, profile)


@needs_matplotlib
def test_everything(write_metrics, lines, everything):
    folder = write_metrics(lines(), '{"step": 9')
    (folder / "recipe.yaml").write_text("model: v2_nano\ndata: {batch_size: 4}\n# <b>&</b>\n")
    (folder / "facts.json").write_text(json.dumps({"device": "<i>cpu</i>"}))
    path = write_report(folder, everything)
    page = Page(path)
    assert path == folder / "report.html"
    assert page.titles == [
        "Summary",
        "Learning",
        "Each loss",
        "Spread of the features",
        "Nearest neighbors",
        "Attention of the queries",
        "Use of the experts",
        "Schedules and gradients",
        "Speed",
        "Recipe",
    ]
    for words in (
        "Pre-training of v2_nano",
        "kNN accuracy is 0.500 at the end, above 0.250 before training.",
        "The features did not collapse",
        "# <b>&</b>",
        "<i>cpu</i>",
        "field & wood",
        "50% of all 4 neighbors agree",
        "3 of 4 experts get less",
        "320",
    ):
        assert words in page.text, words
    curves, neighbors, attention, experts, speed = 2 + 1 + 2 + 1, 2 * 3, 2 * 4, 2, 3
    assert len(page.images) == curves + neighbors + attention + experts + speed
    assert sorted(p.name for p in folder.iterdir()) == [
        "facts.json",
        "metrics.jsonl",
        "recipe.yaml",
        "report.html",
    ]


@needs_matplotlib
def test_nothing_comes_from_outside(write_metrics, everything):
    page = Page(write_report(write_metrics(ONE_LINE), everything))
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert all(image["alt"] for image in page.images)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    targets = {"#" + attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert targets == {attributes["href"] for tag, attributes in page.tags if tag == "a"}


@needs_matplotlib
def test_frames_say_whether_classes_agree(write_metrics, neighbors):
    folder = write_metrics(ONE_LINE)
    page = Page(write_report(folder, Pictures(neighbors())))
    kinds = [a["class"] for tag, a in page.tags if tag == "figure" and "class" in a]
    assert kinds == ["first", "same", "same", "first", "other", "other"]
    page = Page(write_report(folder, Pictures(neighbors(classes=None))))
    kinds = [a["class"] for tag, a in page.tags if tag == "figure" and "class" in a]
    assert kinds == ["first", "", "", "first", "", ""]
    assert "0.90 b.tif" in page.text


@needs_matplotlib
def test_sheets_are_cut_to_what_can_be_looked_at(write_metrics, neighbors, attention, images):
    many = neighbors(
        images=images(40),
        names=[f"{i}" for i in range(40)],
        classes=None,
        order=np.stack([np.roll(np.arange(40), -i)[:10] for i in range(40)]),
        scores=np.zeros((40, 9)),
    )
    looks = attention(images=images(9), attention=np.ones((9, 16, 2, 2)))
    page = Page(write_report(write_metrics(ONE_LINE), Pictures(many, looks)))
    kinds = [a["class"] for tag, a in page.tags if tag == "figure" and "class" in a]
    assert kinds.count("first") == 12 + 4
    assert kinds.count("") == 12 * 6 + 4 * 6
    assert "query 1: 1.0" in page.text
    assert "query 16: 1.0" in page.text


@needs_matplotlib
def test_what_is_missing_has_no_section(write_metrics):
    folder = write_metrics([{"step": 10, "loss": 3.0}])
    page = Page(write_report(folder, Pictures(experts={}, profile=[])))
    assert page.titles == ["Summary", "Learning"]
    assert len(page.images) == 1


@needs_matplotlib
def test_the_same_run_has_the_same_page(write_metrics, everything):
    folder = write_metrics(ONE_LINE)
    before = write_report(folder, everything).read_bytes()
    assert write_report(folder, everything).read_bytes() == before


@needs_matplotlib
def test_a_recipe_that_is_no_yaml_is_shown_as_it_stands(write_metrics):
    folder = write_metrics(ONE_LINE)
    (folder / "recipe.yaml").write_text("model: [\n")
    page = Page(write_report(folder, Pictures()))
    assert "model: [" in page.text
    assert page.titles[-1] == "Recipe"


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[1]", "holds no object")])
def test_facts_that_are_none(write_metrics, text, message):
    folder = write_metrics(ONE_LINE)
    (folder / "facts.json").write_text(text)
    with pytest.raises(ValueError, match=rf"facts\.json {message}"):
        write_report(folder, Pictures())


def test_no_metrics(write_metrics):
    with pytest.raises(ValueError, match="holds no metrics"):
        write_report(write_metrics([]), Pictures())


@needs_matplotlib
def test_what_cannot_be_written_leaves_the_last_page(write_metrics, monkeypatch):
    folder = write_metrics(ONE_LINE)
    path = write_report(folder, Pictures())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skysense.pretrain.report.writing.os.replace", full)
    with pytest.raises(ValueError, match=r"could not be written \(No space left on device\)"):
        write_report(folder, Pictures())
    assert path.read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.jsonl", "report.html"]


def test_missing_matplotlib_names_the_extra(write_metrics, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.image"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"skysense\[plots\]"):
        write_report(write_metrics(ONE_LINE), Pictures())
