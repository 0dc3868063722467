#!/usr/bin/env python3
"""What image size, tiles and orientation are worth, on pictures made here.

    tests/generated.py big|turned|many [--seeds 1,2,3] [--keep DIR] [--normals N]

`big`: frames of 2448 x 2048, milled grey with grain; defects are one or two scratches of 20 pixels, 2
wide. Trained at 256 x 256, at the size that `--image-size auto` takes, and there with `--tile 512`.
`turned`: brackets lying at 0 to 360 degrees; defects are a missing hole, a dent or a scratch. Trained
with `--orientation fixed` and `any`.
`many`: the same brackets lying within four degrees of each other, 2,000 of them (`--normals`) to train on and a
tenth as many to test. Trained with features of at most 8192, 1024 and 256 MiB.
Preset `fast`, ten known defects; prints a table of means over seeds. Needs the program, numpy and Pillow.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image, ImageDraw, ImageFilter

BIG = (2448, 2048)


def smooth(noise, rows, columns):
    """Noise averaged over so many rows and columns, of deviation 1."""
    for axis, side in ((0, rows), (1, columns)):
        sums = numpy.cumsum(noise, axis=axis)
        noise = sums - numpy.roll(sums, side, axis=axis)
    return noise / noise.std()


def milled(chance):
    """A normal big frame."""
    shape = BIG[::-1]
    shade = smooth(chance.standard_normal((shape[0] // 8, shape[1] // 8)), 20, 20).repeat(8, 0).repeat(8, 1)
    lines = smooth(chance.standard_normal(shape), 2, 40)
    return 150 + 6 * shade + 5 * lines + 4 * chance.standard_normal(shape)


def scratched(chance):
    """A big frame with a scratch or two, and its mask."""
    frame, mask = milled(chance), numpy.zeros(BIG[::-1], bool)
    down, across = numpy.mgrid[-16:17, -16:17]
    for _ in range(chance.integers(1, 3)):
        angle = chance.uniform(0, numpy.pi)
        y, x = chance.integers(60, BIG[1] - 60), chance.integers(60, BIG[0] - 60)
        along = across * numpy.cos(angle) + down * numpy.sin(angle)
        aside = down * numpy.cos(angle) - across * numpy.sin(angle)
        hit = (abs(along) <= 10) & (abs(aside) <= 1.2)
        place = numpy.s_[y - 16 : y + 17, x - 16 : x + 17]
        frame[place] += numpy.where(hit, chance.choice([-45, 45]), 0)
        mask[place] |= hit
    return frame, mask


def bracket(chance, defect, angle):
    """A bracket turned by so many degrees, 320 x 320, and the mask of its defect."""
    side = 320
    part, mask = Image.new("L", (side, side), 60), Image.new("L", (side, side), 0)
    draw, marked = ImageDraw.Draw(part), ImageDraw.Draw(mask)
    draw.polygon([(70, 80), (250, 80), (250, 150), (150, 150), (150, 240), (70, 240)], fill=170)
    holes = [(100, 110), (220, 115), (110, 210)]
    missing = chance.integers(3) if defect == "missing" else None
    for number, (x, y) in enumerate(holes):
        box = (x - 12, y - 12, x + 12, y + 12)
        if number == missing:
            marked.ellipse(box, fill=255)
        else:
            draw.ellipse(box, fill=60)
    if defect in ("dent", "scratch"):
        x, y = [(160, 115), (185, 130), (95, 165), (125, 180)][chance.integers(4)]
        if defect == "dent":
            radius = int(chance.integers(5, 9))
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=140)
            marked.ellipse(box, fill=255)
        else:
            turn, length = chance.uniform(0, numpy.pi), chance.uniform(12, 20)
            ends = [(x + s * length * numpy.cos(turn), y + s * length * numpy.sin(turn)) for s in (-1, 1)]
            draw.line(ends, fill=205, width=3)
            marked.line(ends, fill=255, width=3)
    part = part.filter(ImageFilter.GaussianBlur(1)).rotate(angle, Image.BICUBIC, fillcolor=60)
    return numpy.asarray(part) + 5 * chance.standard_normal((side, side)), numpy.asarray(mask.rotate(angle)) > 127


def save(values, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numpy.clip(values, 0, 255).astype(numpy.uint8)).save(path, quality=95)


def write(kind, folder, normals):
    """The set of a kind in MVTec layout; always the same."""
    chance = numpy.random.default_rng(1)
    kinds = ["missing", "dent", "scratch"]
    counts, types = {
        "big": ((24, 16, 13), ["scratch", "scratch"]),
        "turned": ((60, 30, 10), kinds),
        "many": ((normals, normals // 10, 10), kinds),
    }[kind]

    def picture(defect):
        if kind == "big":
            return scratched(chance) if defect else (milled(chance), None)
        return bracket(chance, defect, chance.uniform(0, 360) if kind == "turned" else chance.uniform(-4, 4))

    for split, count in zip(["train", "test"], counts):
        for number in range(count):
            save(picture(None)[0], folder / split / "good" / f"{number:03}.jpg")
    for number, name in enumerate(types * counts[2]):
        values, mask = picture(name)
        save(values, folder / "test" / name / f"{number:03}.jpg")
        save(255 * mask, folder / "ground_truth" / name / f"{number:03}_mask.png")


def run(command):
    """What a command prints; ends the script where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["big", "turned", "many"])
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--normals", type=int, default=2000, help="of `many`, to train on")
    parser.add_argument("--keep", type=pathlib.Path, help="write the pictures here, to look at")
    parser.add_argument("--program", default=".runtime/bin/linegate")
    arguments = parser.parse_args()
    seeds = arguments.seeds.split(",")
    auto = ["--image-size", "auto"]
    variants = {
        "big": [["--image-size", "256"], auto, [*auto, "--tile", "512"]],
        "turned": [["--orientation", "fixed"], ["--orientation", "any"]],
        "many": [["--feature-budget-mib", budget] for budget in ("8192", "1024", "256")],
    }[arguments.kind]
    print("| | image AUROC | pixel AUROC | AUPRO | pixel AP | training, CPU s | MiB | evaluation, s a picture |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data = arguments.keep or folder / "data"
        write(arguments.kind, data, arguments.normals)
        for flags in variants:
            rows = []
            for seed in seeds:
                bundle = folder / "bundle"
                trained = run([arguments.program, "train", "--data", data, "--out", bundle, "--preset", "fast",
                               "--defects", "10", "--seed", seed, "--json", *flags])
                began = time.monotonic()
                found = json.loads(run([arguments.program, "evaluate", "--bundle", bundle, "--data", data, "--json"]))
                took = (time.monotonic() - began) / len(found["images"])
                metrics = [found[name] for name in ("image_auroc", "pixel_auroc", "aupro", "pixel_ap")]
                trained = json.loads(trained)
                rows.append([*metrics, trained["cpu_seconds"], trained["peak_memory_mib"], took])
            means = [sum(column) / len(rows) for column in zip(*rows)]
            cells = [f"{mean:.3f}" for mean in means[:4]] + [f"{means[4]:.0f}", f"{means[5]:.0f}", f"{means[6]:.2f}"]
            print(f"| `{' '.join(flags)}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
