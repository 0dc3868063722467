#!/usr/bin/env python3
"""Lays the solar cells of elpv-dataset out for the demo. Standard library only.

  prepare_elpv.py ELPV_DIR OUT_DIR

ELPV_DIR holds labels.csv ("PATH PROBABILITY TYPE" a line) and the pictures it names. Only
monocrystalline cells are taken: probability 0 is good, probability 1 is defective; what the people
who labelled were unsure of is left out. OUT_DIR gets

  data/train/good/       normals to fit and calibrate on
  data/test/good/        for `linegate evaluate`
  data/test/defective/   the same; training takes its few known defects from here
  line/part-NNNN.png     what comes down the line, good and defective mixed
  line/labels.csv        part_id,label: the file's name (which a folder camera gives as the part's
                         identity), good or defect

No picture is in two of them. The split is drawn by a hash of the path, so it is the same on every
machine; a folder that was laid out by the same plan from the same pictures is left alone.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

# How many of each kind go where; the rest is not used.
TRAIN_GOOD = 200
TEST_GOOD = 100
TEST_DEFECTIVE = 100
LINE_GOOD = 120
LINE_DEFECTIVE = 120

# Raised when what is written changes otherwise, so that an older layout is made again.
LAYOUT = 3
PLAN = f"{LAYOUT} {TRAIN_GOOD} {TEST_GOOD} {TEST_DEFECTIVE} {LINE_GOOD} {LINE_DEFECTIVE}"


class LayoutError(Exception):
    """What is wrong with the pictures, and what to do."""


def drawn(purpose, path):
    """The place of a path in a draw for this purpose."""
    return hashlib.sha256(f"{purpose}:{path}".encode()).digest()


def read_labels(labels):
    """Paths of the good and of the defective monocrystalline cells, each in drawn order."""
    kinds = {"good": [], "defective": []}
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            path, probability, cell = fields[0], float(fields[1]), fields[2]
        except (IndexError, ValueError):
            raise LayoutError(f"{labels}, line {number}: expected PATH PROBABILITY TYPE, found {line!r}") from None
        if cell != "mono":
            continue
        if probability == 0.0:
            kinds["good"].append(path)
        elif probability == 1.0:
            kinds["defective"].append(path)
    for paths in kinds.values():
        paths.sort(key=lambda path: drawn("split", path))
    return kinds


def take(paths, count, what):
    """Cuts the first paths off; the caller's list keeps the rest."""
    if len(paths) < count:
        raise LayoutError(f"{len(paths)} pictures are left for {what}, {count} are needed: is the data set whole?")
    taken = paths[:count]
    del paths[:count]
    return taken


def copy_all(source, paths, folder):
    """Copies pictures into a new folder under their own names."""
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(source / path, folder / Path(path).name)


def lay_out(source, out):
    """Writes everything below a new, empty folder."""
    kinds = read_labels(source / "labels.csv")
    line = [(path, "good") for path in take(kinds["good"], LINE_GOOD, "the line's good parts")]
    line += [(path, "defect") for path in take(kinds["defective"], LINE_DEFECTIVE, "the line's defective parts")]
    copy_all(source, take(kinds["good"], TRAIN_GOOD, "training"), out / "data/train/good")
    copy_all(source, take(kinds["good"], TEST_GOOD, "the good test set"), out / "data/test/good")
    copy_all(source, take(kinds["defective"], TEST_DEFECTIVE, "the defective test set"), out / "data/test/defective")

    line.sort(key=lambda part: drawn("line", part[0]))
    (out / "line").mkdir()
    rows = ["part_id,label"]
    for number, (path, label) in enumerate(line, start=1):
        name = f"part-{number:04d}.png"
        shutil.copyfile(source / path, out / "line" / name)
        rows.append(f"{name},{label}")
    (out / "line/labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (out / "plan").write_text(PLAN + "\n", encoding="utf-8")


def main():
    """Lays out unless that was done; exits 1 on failure."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        plan = out / "plan"
        if plan.exists() and plan.read_text(encoding="utf-8").strip() == PLAN:
            print(f"    {out} is laid out")
            return 0
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".layout-", dir=out.parent) as work:
            fresh = Path(work) / "fresh"
            fresh.mkdir()
            lay_out(source, fresh)
            if out.exists():
                os.replace(out, Path(work) / "old")
            os.replace(fresh, out)
    except (LayoutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"    {TRAIN_GOOD} normals to learn from, {TEST_GOOD} good and {TEST_DEFECTIVE} defective to measure on,")
    print(f"    {LINE_GOOD} good and {LINE_DEFECTIVE} defective cells for the line")
    return 0


if __name__ == "__main__":
    sys.exit(main())
