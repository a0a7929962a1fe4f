"""When a client is made anew. Times are seconds of a clock that the tests write down."""

from services.uploader.errors import ClientSetupError, ConfigurationError, TransientError
from services.uploader.store.renewal import HUNG_IN_A_ROW, REFUSED_IN_A_ROW, RENEW_EVERY_S, Renew, Renewal

EXPIRED = ClientSetupError("expired_token", "")


def refused(renewal: Renewal, times: int, now_s: float = 0.0) -> list[Renew | None]:
    return [renewal.failed(EXPIRED, now_s) for _ in range(times)]


def test_refusals_in_a_row_make_a_client_anew() -> None:
    """The third refusal with nothing stored between, with its reason; no earlier one."""
    assert refused(Renewal(), REFUSED_IN_A_ROW) == [None, None, Renew("expired_token", first=True)]


def test_a_stored_put_between_begins_again() -> None:
    """A policy that denies one folder of many does not cost a client every few seconds."""
    renewal = Renewal()
    for _ in range(100):
        assert refused(renewal, REFUSED_IN_A_ROW - 1) == [None, None]
        renewal.stored()


def test_renewals_keep_a_distance() -> None:
    """However many puts fail at once, credentials are read once in 5 s; then on the next refusal at once."""
    renewal = Renewal()
    refused(renewal, REFUSED_IN_A_ROW, 10.0)
    assert refused(renewal, 50, 10.0 + RENEW_EVERY_S - 0.1) == [None] * 50
    assert refused(renewal, 1, 10.0 + RENEW_EVERY_S) == [Renew("expired_token", first=False)]
    renewal.stored()
    assert refused(renewal, 3, 30.0)[2] == Renew("expired_token", first=True)


def test_a_streak_outlives_a_renewal_in_vain() -> None:
    """One worker in its longest backoff asks once in 10 s: the next refusal reads them again."""
    renewal = Renewal()
    assert refused(renewal, REFUSED_IN_A_ROW, 10.0)[-1] is not None
    assert refused(renewal, 1, 20.0) == [Renew("expired_token", first=False)]


def test_only_what_a_new_client_may_mend_counts() -> None:
    """A bucket that is missing, and weather, are not mended by a new client."""
    renewal = Renewal()
    for error in (ConfigurationError("no_such_bucket", ""), TransientError("slow_down", ""), OSError()):
        assert [renewal.failed(error, 0.0) for _ in range(10)] == [None] * 10


def test_puts_past_the_last_deadline_make_a_client_anew() -> None:
    """Three in a row, and three again for the next client; a stored one between clears it."""
    renewal = Renewal()
    assert [renewal.hung(0.0) for _ in range(HUNG_IN_A_ROW)] == [None, None, Renew("wedged", first=True)]
    assert [renewal.hung(20.0) for _ in range(HUNG_IN_A_ROW)] == [None, None, Renew("wedged", first=False)]
    renewal.hung(40.0)
    renewal.hung(40.0)
    renewal.stored()
    assert renewal.hung(60.0) is None
