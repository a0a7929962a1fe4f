"""Apache Kafka's jars: fetched once from the Maven repositories that jgo knows, kept in the checkout's `.cache`.

jgo writes a download straight to its final name, so an interrupted one would look complete ever after. Here
everything goes to a folder of its own that gets its final name when all of it is there; what was broken off is
thrown away and fetched again. Repositories of the user's own jgo settings are asked first, then jgo's default;
proxies and CA bundles are those of `requests`.
"""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import jgo.config
import jgo.constants
import jgo.env
import jgo.maven

KAFKA_VERSION = "4.3.1"
CACHE = Path(__file__).resolve().parents[2] / ".cache"
_LOG4J_VERSION = "2.25.4"  # that of the log4j-api which this Kafka brings
_ENDPOINT = "+".join(
    (
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        # `!`: without its BOM, which would set the version of half of Kafka, kafka-clients included.
        # Kafka's pom leaves the choice of a log to its distribution; without one the broker is mute
        f"org.apache.logging.log4j:log4j-slf4j-impl:{_LOG4J_VERSION}!",
        f"org.apache.logging.log4j:log4j-core:{_LOG4J_VERSION}!",
    )
)
_ATTEMPTS = 3
_READ_TIMEOUT_S = 30


class FetchError(Exception):
    """The jars could not be fetched; the message says from where and why."""


def kafka_jars(report: Callable[[str], None] = lambda _line: None) -> Path:
    """The folder with Kafka's jars, fetched first if need be (about 46 MB).

    Args:
        report: told in a line what is being done, when there is something to do.

    Raises:
        FetchError: it cannot be had.

    """
    home = CACHE / f"kafka-{KAFKA_VERSION}"
    if home.is_dir():
        return home
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second start waits here and then finds them
        if home.is_dir():
            return home
        for attempt in range(1, _ATTEMPTS + 1):
            report(f"fetching Apache Kafka {KAFKA_VERSION}, 46 MB, once")
            try:
                _fetch(home)
            except Exception as error:  # jgo raises whatever its parts raise
                if attempt == _ATTEMPTS:
                    message = f"Apache Kafka {KAFKA_VERSION} could not be fetched in {_ATTEMPTS} attempts: {error}"
                    raise FetchError(message) from error
                report(f"attempt {attempt} of {_ATTEMPTS} failed ({type(error).__name__}: {error}), trying again")
            else:
                break
    return home


def _fetch(home: Path) -> None:
    part = home.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    repositories = dict(jgo.config.GlobalSettings.load().repositories)
    repositories.setdefault("central", jgo.constants.MAVEN_CENTRAL_URL)
    try:
        context = jgo.maven.MavenContext(
            repo_cache=part / "repository", remote_repos=repositories, timeout=_READ_TIMEOUT_S
        )
        builder = jgo.env.EnvironmentBuilder(context=context, cache_dir=part / "builds")
        found = builder.from_endpoint(_ENDPOINT)
        jars = part / "jars"
        jars.mkdir()
        for jar in Path(found.path).rglob("*.jar"):
            shutil.copyfile(jar, jars / jar.name)
        jars.rename(home)
    finally:
        shutil.rmtree(part, ignore_errors=True)
