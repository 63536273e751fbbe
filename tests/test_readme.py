"""Every Python block of README.md runs, in order and in one namespace, as a reader pastes them."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```python\b[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Line number of the first line of code, and code, of each fenced Python block."""
    return [(text.count("\n", 0, m.start(1)) + 1, m[1]) for m in BLOCK.finditer(text)]


def run_blocks(text: str, name: str) -> None:
    """Run the Python blocks of a page one after the other; fail on the line of the first error."""
    namespace = {"__name__": "__main__"}
    for line, code in python_blocks(text):
        padded = "\n" * (line - 1) + code  # so that a traceback shows the page's own line numbers
        try:
            exec(compile(padded, name, "exec"), namespace)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{name}: the block at line {line} fails: {error!r}") from error


@pytest.mark.filterwarnings("ignore::skysense.models.encoder.UntrainedModelWarning")
def test_readme_runs(tmp_path, monkeypatch):
    assert README.is_file(), "README.md is missing"
    text = README.read_text(encoding="utf-8")
    assert python_blocks(text), "README.md has no ```python block: show how the package is used"
    monkeypatch.chdir(tmp_path)

    run_blocks(text, str(README))


def test_blocks_share_a_namespace_and_know_their_line():
    page = "# Title\n\n```python\nx = 1\n```\n\n```bash\nfalse\n```\n\n```python\nx / 0\n```\n"

    assert python_blocks(page) == [(4, "x = 1\n"), (12, "x / 0\n")]
    with pytest.raises(AssertionError, match=r"page: the block at line 12 fails: ZeroDivision"):
        run_blocks(page, "page")
