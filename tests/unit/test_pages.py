"""The reader of operators' pages: what it takes for a command, and which difference it sees."""

from pathlib import Path

import pytest

from tests.harness.pages import Command, Meanwhile, Shell, difference, read_page
from tests.harness.processes import inherited

PAGE = """# A question

<!-- meanwhile: it rains -->
```console
$ one --option \\
>   more
first
  second
$ echo $?
1
```

```sh
not run
```

```console
$ silent
```
"""


def test_the_steps_of_a_page() -> None:
    """Commands with what is shown below them, in order; what happens; nothing of other blocks."""
    assert read_page(PAGE) == [
        Meanwhile("it rains"),
        Command("one --option \\\n  more", ("first", "  second"), 5),
        Command("echo $?", ("1",), 9),
        Command("silent", (), 18),
    ]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a  1"], ["a 1"]),
        (["a", "", "b"], ["a", "b", ""]),
        (["at 2026-11-25T06:00:00Z, dt=2026-11-25/hour=06"], ["at 2027-01-02T03:04:05Z, dt=2027-01-02/hour=03"]),
        (["in 7 s, 120/s"], ["in 1 min 05 s, 33.3/s"]),
        (["key a…z"], ["key abcz"]),
        (["a", "…", "d"], ["a", "b", "c", "d"]),
        (["…", "d"], ["d"]),
        (["a", "…"], ["a", "b"]),
        ([], ["whatever"]),
    ],
)
def test_what_counts_as_equal(shown: list[str], printed: list[str]) -> None:
    """Blanks, times, durations and rates; what the page leaves out, and a page that shows nothing."""
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["records 400"], ["records 399"]),
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        (["a", "…", "d"], ["a", "b"]),
        (["a…z"], ["abc"]),
        (["a.c"], ["abc"]),
        (["a", "…", "c", "d"], ["a", "b", "c", "x"]),
        (["a"], []),
    ],
)
def test_what_is_a_difference(shown: list[str], printed: list[str]) -> None:
    """Any other figure, a line too many, too few, or another."""
    assert difference(shown, printed) is not None


def test_a_shell_keeps_its_variables_and_tells_exit_codes(tmp_path: Path) -> None:
    """One shell for all commands of a page: `$?` is the last command's, an error's line is among what was printed, and
    names are the page's.
    """
    here = tmp_path / "here"
    here.mkdir()
    with Shell(inherited(), here, {"t-123": "payloads"}) as shell:
        assert shell.run("export WORD=t-123").code == 0
        failed = shell.run("echo $WORD; echo 'error: no' >&2; echo noise >&2; false")
        assert (list(failed.lines), failed.code) == (["payloads", "", "error: no"], 1)
        assert "noise" in failed.errors
        assert shell.run("echo $?").lines[0] == "1"
        assert shell.run("cat").code == 0  # no command eats the next one
        with pytest.raises(AssertionError, match="ended the shell"):
            shell.run("exit 3")
