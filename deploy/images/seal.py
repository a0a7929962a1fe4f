"""Last step of a stage of the images: `seal.py TREE` makes its bytes a function of what went in, and of nothing else.

Owns what would differ between two builds of the same lock and sources (byte code, times), and what nobody runs: the
descriptions of 400 AWS services that are not S3, sources in C, scripts for shells that the images' user does not have.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_MTIME_S = 315_532_800  # 1980-01-01, the first day that a zip file knows; SOURCE_DATE_EPOCH is for the image's own date
# S3, and whom botocore asks for credentials: roles, web identities, IAM Identity Center, `aws login`.
_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
_NOT_RUN = ("*.c", "*.h", "*.pyx", "*.pxd", "*.pyi", "activate*", "Activate.ps1")


def prune(tree: Path) -> None:
    """Delete what nobody runs."""
    for data in tree.glob("**/site-packages/botocore/data"):
        for service in data.iterdir():
            if service.is_dir() and service.name not in _SERVICES:
                shutil.rmtree(service)
    for pattern in _NOT_RUN:
        for path in tree.rglob(pattern):
            path.unlink()


def compile_all(tree: Path) -> None:
    """Byte code that is never compared with its source: no time in it, and none to be looked up at a start.

    The installed path is what tracebacks show, so `TREE` is stripped from it. Constant sets are written in the order of
    their hashes, which a seed fixes; one process, since the order of the work shows in which constants are shared.
    """
    arguments = ["-q", "-j", "1", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/", str(tree)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    subprocess.run([sys.executable, "-m", "compileall", *arguments], env=environment, check=True)  # noqa: S603


def set_times(tree: Path) -> None:
    """One time for all, directories last: writing into one is what changes its own."""
    for path in [*sorted(tree.rglob("*"), reverse=True), tree]:
        os.utime(path, (_MTIME_S, _MTIME_S), follow_symlinks=False)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    prune(root)
    compile_all(root)
    set_times(root)
