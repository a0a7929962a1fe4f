"""How many letters there are, by reason, by what S3 said and by hour, and what of them is in S3 by now. Pure."""

from collections import Counter
from datetime import UTC, datetime

from services.uploader.jobs.bucket.comparison import Finding
from services.uploader.jobs.letters.letter import Letter

MESSAGE_CHARACTERS = 100
MESSAGES_MAX = 200
"""Different messages that are counted apart: some name the key, and a key is in one letter only."""

OTHERS = "(other messages)"


class LetterCounts:
    """Fed letter by letter."""

    def __init__(self) -> None:
        self.letters = 0
        self.bytes = 0  # of their values
        self.by_reason: Counter[str] = Counter()
        self.by_message: Counter[tuple[str, str]] = Counter()  # reason, and the message's beginning
        self.by_hour: Counter[str] = Counter()  # of the letter's own time
        self.by_finding: Counter[Finding] = Counter()  # only of those that S3 was asked for

    def add(self, letter: Letter, finding: Finding | None) -> None:
        """Count one; `finding` None: S3 was not asked."""
        self.letters += 1
        self.bytes += letter.size_bytes
        self.by_reason[letter.reason] += 1
        said = letter.reason, one_line(letter.message)[:MESSAGE_CHARACTERS]
        known = said in self.by_message or len(self.by_message) < MESSAGES_MAX
        self.by_message[said if known else (letter.reason, OTHERS)] += 1
        self.by_hour[hour(letter.written_ms)] += 1
        if finding is not None:
            self.by_finding[finding] += 1

    @property
    def absent(self) -> int:
        """Letters whose object is not there. Where another one is, nothing is put: it was acknowledged to somebody."""
        return self.by_finding[Finding.MISSING]

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {
            "letters": self.letters,
            "bytes": self.bytes,
            "by_reason": dict(self.by_reason.most_common()),
            "by_message": [
                {"reason": reason, "message": message, "letters": count}
                for (reason, message), count in self.by_message.most_common()
            ],
            "by_hour": dict(sorted(self.by_hour.items())),
        }

    def lines(self, *, messages: bool) -> list[str]:
        """For people; `messages`: also what S3 said."""
        lines = ["letters  reason"]
        lines += [f"{count:>7}  {reason}" for reason, count in self.by_reason.most_common()]
        if messages:
            lines.append("letters  message")
            lines += [f"{count:>7}  {reason}: {said}" for (reason, said), count in self.by_message.most_common()]
        lines.append("letters  hour (UTC)")
        lines += [f"{count:>7}  {when}" for when, count in sorted(self.by_hour.items())]
        return lines


def hour(ms: int) -> str:
    """The hour of a time in milliseconds since 1970."""
    return "unknown" if ms < 0 else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:00Z}"


def one_line(text: str) -> str:
    """The text without what would break a line of a table, or tell a terminal to do something."""
    return "".join(character if character.isprintable() else " " for character in text)
