"""`skysense evaluate`: the table, the JSON, and errors in one line."""

import json

import numpy as np
import pytest


@pytest.fixture
def sets(tmp_path):
    """`train` and `test`: two classes that a color tells apart."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, color in (("dark", 40), ("light", 200)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(5):
                noise = rng.integers(-30, 30, (3, 16, 16))
                np.save(folder / f"{i}.npy", (color + noise).astype(np.uint8))
    return tmp_path


@pytest.fixture
def evaluate(skysense, sets):
    """`evaluate(...) -> Result` of the tiny model on `train`."""

    def run(*arguments):
        usual = ("--model", "v2_tiny", "--data", sets / "train", "--neighbors", 3, "--quiet")
        return skysense("evaluate", *usual, *arguments)

    return run


def plain(text):
    """Without the frame of a table."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_table_and_json(evaluate, sets, protocol):
    output = sets / "out" / "scores.json"
    result = evaluate(
        "--test", sets / "test", "--protocol", protocol, "--sensor", "rgb8", "--json", output
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "accuracy 1.000 (1.000...1.000)" in plain(result.stdout)
    assert "recall of light 1.000" in plain(result.stdout)
    facts = json.loads(output.read_text())
    assert (facts["accuracy"], facts["macro_f1"], facts["split"]) == (1, 1, "given")
    assert facts["classes"] == ["dark", "light"]
    assert facts["confusion"] == [[5, 0], [0, 5]]
    assert facts["train"] == {"name": "train", "images": 10}
    assert [path.name for path in output.parent.iterdir()] == ["scores.json"]


def test_small_images_are_enlarged(evaluate, sets):
    output = sets / "scores.json"
    for least, words in ((24, "enlarged to 24 pixels where they are smaller"), (0, "as they are")):
        result = evaluate("--least-size", least, "--cache", sets / "cache", "--json", output)
        assert result.exit_code == 0
        assert f"as `rgb8`, {words};" in plain(result.stdout)
        assert json.loads(output.read_text())["least_size"] == least
    assert len(list((sets / "cache").iterdir())) == 4  # of either size, training and test


def test_without_test_set_and_against_the_random_twin(evaluate, sets):
    output = sets / "scores.json"
    result = evaluate("--against", "random", "--json", output, "--cache", sets / "cache")
    assert result.exit_code == 0
    text = plain(result.stdout)
    assert "20% of each class, drawn with seed 0" in text
    assert "random twin" in text
    assert "accuracy above that of the random twin: +0.000" in text
    facts = json.loads(output.read_text())
    assert facts["test"]["images"] == 2
    assert facts["random"]["model"] == "random twin of v2_tiny"
    assert facts["difference"]["accuracy"] == 0
    assert len(list((sets / "cache").iterdir())) == 4
    assert evaluate("--against", "random", "--cache", sets / "cache").exit_code == 0


def test_split_by_a_column(evaluate, sets):
    rows = [
        f"train/{name}/{i}.npy,{name},{'test' if i == 4 else 'train'}"
        for name in ("dark", "light")
        for i in range(5)
    ]
    (sets / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    result = evaluate("--data", sets)
    assert "2 images" in plain(result.stdout)
    assert "column `split` of the CSV" in plain(result.stdout)


def test_untrained_models_say_so_once(skysense, sets):
    result = skysense(
        "evaluate", "--model", "v2_tiny", "--data", sets / "train", "--against", "random"
    )
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("note: `v2_tiny` is untrained")
    assert "v2_tiny (untrained)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--test", "nowhere"), "nowhere: there is no such folder or file"),
        (("--sensor", "rgb9"), "unknown sensor `rgb9`"),
        (("--sensor", "s1"), "expected (2, H, W) with bands VV, VH"),
        (("--bands", "R,G"), "expected (2, H, W) with bands R, G"),
        (("--protocol", "svm"), "'svm' is not one of"),
        (("--neighbors", "0"), "Invalid value for '--neighbors'"),
        (("--model", "v9"), "unknown model `v9`"),
        (("--json", "."), "is a folder"),
        (("--least-size", "-1"), "Invalid value for '--least-size'"),
        (("--device", "abacus"), "--device abacus is not known"),
    ],
)
def test_bad_options(evaluate, arguments, match):
    result = evaluate(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert match in line


def refusal(result):
    """The one line of a run that is refused."""
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line


def test_bad_sets(evaluate, sets):
    assert "10 of the 10 test images are training" in refusal(evaluate("--test", sets / "train"))
    (sets / "test" / "gray").mkdir()
    assert "no image" in refusal(evaluate("--test", sets / "test"))
    np.save(sets / "test" / "gray" / "a.npy", np.zeros((3, 8, 8), np.uint8))
    assert "lack: `gray`" in refusal(evaluate("--test", sets / "test"))
    (sets / "train" / "light" / "3.npy").write_bytes(b"")
    assert "light/3.npy: cannot be read as an image" in refusal(evaluate())
