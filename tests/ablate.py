#!/usr/bin/env python3
"""What each choice of the training is worth: a table of settings, seeds, metrics and CPU seconds.

    tests/ablate.py --data DIR [--groups CSV] [--seeds 1,2,3] [--only NAME ...] [--jobs N]

Trains and evaluates every variant below with every seed and prints a Markdown table of the means
(and the spread over seeds, highest less lowest). Needs nothing but this file and the program.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile

# What is changed against the preset: keys of `linegate train --config`, and flags.
VARIANTS = {
    "standard": ("", []),
    "fast": ("", ["--preset", "fast"]),
    "features not whitened": ("whiten = false", []),
    "no context level": ("context = 0", []),
    "large defects not contrasted": ("contrast = false", []),
    "no share for the strongest level": ("strongest = 0.0", []),
    "no neighbourhood pooling": ("pooling = 1", []),
    "evidence without bound": ("ceiling = 0", []),
    "no normals beside defects": ("beside_pixels = 0", []),
    "no copy-paste": ("synthesised = 1", []),
    "invented defects besides": ("invented = 64", []),
    "half the steps": ("steps = 400", []),
    "twice the steps": ("steps = 1600", []),
    "a sixth of the rate": ("learning_rate = 1e-3", []),
    "half the rate": ("learning_rate = 3e-3", []),
    "a rate of 0.01": ("learning_rate = 1e-2", []),
    "hidden width 128": ("hidden_width = 128", []),
    "the finest map's flow like the others": ("finest_blocks = 4\nfinest_hidden_width = 64", []),
    "eight-bit backbone": ('numbers = "int8"', []),
    "eight blocks": ("blocks = 8", []),
    "margin 0.1": ("margin = 0.1", []),
    "boundary quantile 0.05": ("boundary_quantile = 0.05", []),
    "320 pixels": ("", ["--image-size", "320"]),
    "384 pixels": ("", ["--image-size", "384"]),
    "normals, invented defects": ("defects = 0", []),
    "normals alone": ("defects = 0\nsynthetic = false", []),
    "normals alone, no coreset": ("defects = 0\nsynthetic = false\ncoreset = 0", []),
    "1 known defect": ("defects = 1", []),
    "5 known defects": ("defects = 5", []),
    "20 known defects": ("defects = 20", []),
}
METRICS = ["image_auroc", "pixel_auroc", "aupro", "pixel_ap"]


def one(arguments, name, seed):
    """Trains and evaluates one variant with one seed; gives its metrics and CPU seconds."""
    keys, flags = VARIANTS[name]
    data = ["--data", arguments.data] + (["--groups", arguments.groups] if arguments.groups else [])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        config = folder / "training.toml"
        config.write_text(keys if "defects" in keys.split("\n")[0] else f"defects = {arguments.defects}\n{keys}")
        bundle = str(folder / "bundle")
        train = [arguments.program, "train", *data, "--out", bundle, "--config", str(config)]
        train += ["--seed", str(seed), "--threads", str(arguments.threads), "--json", *flags]
        cost = run(train)["cpu_seconds"]
        found = run([arguments.program, "evaluate", "--bundle", bundle, *data, "--json"])
    return [found[metric] for metric in METRICS] + [found["at_boundary"]["false_reject_rate"], cost]


def run(command):
    """The JSON that a command prints; ends the script where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--groups")
    parser.add_argument("--defects", type=int, default=10)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=0, help="threads of each; 0 is one per core")
    parser.add_argument("--program", default=".runtime/bin/linegate")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    print(f"| setting ({len(seeds)} seeds) | image AUROC | pixel AUROC | AUPRO | pixel AP | false rejects | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = {name: [pool.submit(one, arguments, name, seed) for seed in seeds] for name in arguments.only}
        for name, results in jobs.items():
            columns = list(zip(*[result.result() for result in results]))
            cells = [
                "-" if None in column else f"{sum(column) / len(column):.3f} ({max(column) - min(column):.3f})"
                for column in columns[:-1]
            ]
            print(f"| {name} | {' | '.join(cells)} | {sum(columns[-1]) / len(seeds):.0f} |", flush=True)


if __name__ == "__main__":
    main()
