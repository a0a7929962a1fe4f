"""How many puts a second: when the next one may start. Pure; the caller brings the clock."""


class Rate:
    """At most `per_s` a second, evenly: a second's worth may never come in one burst."""

    def __init__(self, per_s: float) -> None:
        self._every_s = 1 / per_s
        self._next_s: float | None = None  # when the next may start

    def wait_s(self, now_s: float) -> float:
        """Take the next turn; how long to wait for it. A turn once taken is used up, whether or not its owner comes."""
        start_s = now_s if self._next_s is None else max(now_s, self._next_s)
        self._next_s = start_s + self._every_s
        return start_s - now_s
