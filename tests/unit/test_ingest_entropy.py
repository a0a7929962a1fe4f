"""Random bytes by the page: as many as were asked for, and none of them twice."""

from services.ingest.entropy import Entropy


def test_no_bytes_are_given_twice() -> None:
    """Over several pages, whose ends fall between two sizes: every piece is whole, and another."""
    entropy = Entropy()
    pieces = [entropy.take(10 if number % 2 else 16) for number in range(3000)]
    assert [len(piece) for piece in pieces] == [10 if number % 2 else 16 for number in range(3000)]
    assert len({piece[:10] for piece in pieces}) == 3000
