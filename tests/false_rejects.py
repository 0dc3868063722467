#!/usr/bin/env python3
"""Whether the calibrated boundary keeps the false-reject rate that was asked for.

    tests/false_rejects.py --data DIR [--groups CSV] [--splits 10] [--rates 0.001,0.01,0.05] [--calibration-fraction 0.2]

For every split the normals of train/good and test/good are thrown together and divided anew, whole
groups at a time: 60 % train and calibrate, 40 % are judged. One training a split serves all rates,
since the boundary is a rank among the calibration scores, which the bundle keeps. Prints per rate what
can be kept with so few groups (the highest of n is passed once in n + 1 times), the rejected share of
the judged normals over all splits with its 95 % interval, and the lowest and highest split.
"""

import argparse
import collections
import csv
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile


def run(command):
    """What a command prints; ends the script where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def threshold(scores, groups, rate):
    """The boundary as in src/training/calibration/conformal.rs, and whether the groups suffice for it."""
    sizes = collections.Counter(groups)
    share = 0.0
    for score, group in sorted(zip(scores, groups)):
        share += 1 / ((len(sizes) + 1) * sizes[group])
        if share >= 1 - rate - 1e-9:
            return score, True
    return max(scores), False


def interval(shares):
    """The 95 % interval of the mean share, by resampling whole splits: the pictures of a group are not
    independent, so an interval that counts pictures would be too narrow."""
    chance = random.Random(0)
    means = sorted(sum(chance.choices(shares, k=len(shares))) / len(shares) for _ in range(10_000))
    return means[249], means[9_749]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--groups", type=pathlib.Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--rates", default="0.001,0.01,0.05")
    parser.add_argument("--calibration-fraction", type=float, default=0.2, help="of the training normals")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--program", default=".runtime/bin/linegate")
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    data = arguments.data.resolve()
    group_of = {}
    if arguments.groups:
        group_of = {row["file"]: row["group"] for row in csv.DictReader(arguments.groups.open())}
    groups = collections.defaultdict(list)
    for split in ["train", "test"]:
        for file in sorted((data / split / "good").iterdir()):
            # By its path: the same name in both folders is not the same part.
            path = f"{split}/good/{file.name}"
            groups[group_of.get(path, path)].append(file)
    defect = next(file for kind in sorted((data / "test").iterdir()) if kind.name != "good" for file in kind.iterdir())

    found = {rate: [] for rate in rates}
    for number in range(arguments.splits):
        order = sorted(groups)
        random.Random(number).shuffle(order)
        wanted = 0.6 * sum(len(files) for files in groups.values())
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            taken, listing = 0, ["file,group"]
            for name in order:
                split = "train" if taken < wanted else "test"
                taken += len(groups[name])
                for at, file in enumerate(groups[name]):
                    target = folder / "data" / split / "good" / f"{name.replace('/', '_')}-{at}{file.suffix}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.symlink(file, target)
                    listing.append(f"{target.relative_to(folder / 'data')},{name}")
            target = folder / "data" / "test" / "any" / defect.name
            target.parent.mkdir(parents=True)
            os.symlink(defect, target)
            (folder / "groups.csv").write_text("\n".join(listing + [f"test/any/{defect.name},any"]) + "\n")
            base = ["--data", str(folder / "data"), "--groups", str(folder / "groups.csv")]
            bundle, config = folder / "bundle", folder / "training.toml"
            config.write_text(f"calibration_fraction = {arguments.calibration_fraction}\n")
            run([arguments.program, "train", *base, "--out", str(bundle), "--config", str(config), "--preset",
                 arguments.preset, "--seed", str(number)])
            judged = json.loads(run([arguments.program, "evaluate", "--bundle", str(bundle), *base, "--json"]))
            calibration = json.loads((bundle / "manifest.json").read_text())["calibration"]["set"]
        scores = [image["score"] for image in judged["images"] if image["label"] == "good"]
        for rate in rates:
            boundary, reached = threshold(calibration["scores"], calibration["score_groups"], rate)
            within = max(rate, 1 / (calibration["groups"] + 1))
            found[rate].append((sum(score > boundary for score in scores), len(scores), within, reached))
        print(f"split {number}: {calibration['images']} of {calibration['groups']} groups calibrate, {len(scores)} judged, rejected "
              + ", ".join(f"{found[rate][-1][0]} at {rate:g}" for rate in rates), file=sys.stderr, flush=True)

    print("| asked | within reach | measured | 95 % interval | lowest and highest split |")
    print("| --- | --- | --- | --- | --- |")
    for rate in rates:
        hits, count = sum(f[0] for f in found[rate]), sum(f[1] for f in found[rate])
        shares = [f[0] / f[1] for f in found[rate]]
        low, high = interval(shares)
        within = sum(f[2] for f in found[rate]) / len(shares)
        print(f"| {rate:.1%} | {within:.1%} | {hits / count:.1%} ({hits} of {count}) | {low:.1%} to {high:.1%} | "
              f"{min(shares):.1%} to {max(shares):.1%} |")


if __name__ == "__main__":
    main()
