"""Two runs of the benchmark against each other: what `twice within 10 %` is judged by."""

from pathlib import Path

import pytest

from bench.compare import differences, main
from bench.results import Result
from bench.runs import Run


def runs(ours_us: float) -> list[Run]:
    """One round of two subjects; the peer's is 100."""
    figures = {"ours": ours_us, "go-seed": 100.0}
    return [Run("end-to-end", "1 payload a request", name, cpu_us=cpu_us) for name, cpu_us in figures.items()]


def test_a_difference_is_in_parts_of_the_smaller_ratio() -> None:
    """0.5 and 0.6: a fifth, whichever came first. What only one of them has is not compared."""
    for first, second in ((50, 60), (60, 50)):
        ((target, _, _, by),) = differences([*runs(first), Run("put", "TLS", "wire", cpu_us=1)], runs(second))
        assert (target.over, target.under) == ("ours", "go-seed")
        assert by == pytest.approx(0.2)


@pytest.mark.parametrize(("second", "code"), [(54, 0), (56, 1), (44, 1)])
def test_more_than_a_tenth_is_told_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: float, code: int
) -> None:
    """0.5 and 0.54 agree; 0.56 and 0.44 do not."""
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path, ours_us in zip(paths, (50, second), strict=True):
        Result({}, {}, runs(ours_us)).write(path)
    assert main([str(path) for path in paths]) == code
    assert ("**" in capsys.readouterr().out) == bool(code)


def test_nothing_to_compare_is_no_agreement(tmp_path: Path) -> None:
    """Two results without a common ratio prove nothing."""
    path = tmp_path / "empty.json"
    Result({}, {}).write(path)
    assert main([str(path), str(path)]) == 1
