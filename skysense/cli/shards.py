"""`skysense shards`: imagery to shards for pre-training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skysense.cli.command import ManyValues
from skysense.cli.options import progress_bar

if TYPE_CHECKING:
    from skysense.data.shards import Built, Draft, Reading

shards = typer.Typer(help="Shards of samples for pre-training.", no_args_is_help=True)

_Files = list[Path] | None


@shards.callback()
def _group() -> None:
    """Shards of samples for pre-training."""


@shards.command(cls=ManyValues)
def build(
    sources: Annotated[
        _Files,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Images, folders or zip archives of images, .npz files, folders of places, "
            "STAC items (.json).",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write; replaced if it is shards.")
    ] = Path("shards"),
    hr: Annotated[_Files, typer.Option("--hr", help="A scene's high-resolution image.")] = None,
    s2: Annotated[_Files, typer.Option("--s2", help="Its Sentinel-2 files, of all dates.")] = None,
    s1: Annotated[_Files, typer.Option("--s1", help="Its Sentinel-1 files, of all dates.")] = None,
    by_name: Annotated[
        bool,
        typer.Option(
            "--by-name",
            help="--hr, --s2, --s1 are a folder each; files of the same name are one place.",
        ),
    ] = False,
    synthetic: Annotated[
        int, typer.Option("--synthetic", min=0, help="Add so many synthetic places.")
    ] = 0,
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            "--sensor",
            help="Sensor card; once a modality. Defaults: hr rgb8, s2 s2_l2a, s1 s1.",
        ),
    ] = None,
    bands: Annotated[
        list[str] | None,
        typer.Option("--bands", help="Band names of files that do not say them, e.g. s1=VV,VH."),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            "--size",
            help="Windows of scenes and places: pixels of the finest layer, or metres (640m).",
        ),
    ] = "256",
    max_size: Annotated[
        int | None,
        typer.Option("--max-size", min=1, help="Cut images whose longer side exceeds it."),
    ] = None,
    exclude: Annotated[
        _Files,
        typer.Option("--exclude", help="CSV whose column `path` lists files to leave out."),
    ] = None,
    samples_per_shard: Annotated[
        int, typer.Option("--samples-per-shard", min=1, help="Samples of a shard at most.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the shuffled order.")] = 0,
    keep_clouds: Annotated[
        bool, typer.Option("--keep-clouds", help="Do not mask what the SCL band calls cloud.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Turn imagery into shuffled shards that a pre-training run reads.

    Class folders give no labels. What cannot be read is named and left out. Example:

    skysense shards build photos/ patches.npz --exclude held_out.csv -o shards/
    """
    from skysense.data.shards import Cut, Reading, build_shards, leave_out, read_excluded
    from skysense.data.shards.build import check_replaceable
    from skysense.sensors import get_sensor

    cards: dict[str, str] = {get_sensor(name).modality: name for name in sensor or []}
    if len(cards) != len(sensor or []):
        raise ValueError("two `--sensor` cards are of the same modality")
    check_replaceable(output)
    reading = Reading(
        sensors=cards,
        bands=_band_names(bands or [], list(cards)),
        cut=Cut.parse(size),
        max_size=max_size,
        mask_clouds=not keep_clouds,
    )
    scene = {key: paths for key, paths in (("hr", hr), ("s2", s2), ("s1", s1)) if paths}
    drafts = _drafts(sources or [], scene, by_name, synthetic, seed, reading)
    listed = frozenset(path for file in exclude or [] for path in read_excluded(file))
    drafts, left_out = leave_out(drafts, listed)
    with progress_bar("reading", "files and places", len(drafts), quiet) as advance:
        built = build_shards(
            drafts, output, samples_per_shard=samples_per_shard, seed=seed, progress=advance
        )
    if not quiet:
        _report(built, output, left_out)


def _drafts(
    sources: list[Path],
    scene_files: Mapping[str, list[Path]],
    by_name: bool,
    synthetic: int,
    seed: int,
    reading: "Reading",
) -> "list[Draft]":
    """All that is asked for."""
    from skysense.data.shards import drafts_of, pairs, scene
    from skysense.data.shards import synthetic as synthetic_places

    drafts = [draft for source in sources for draft in drafts_of(source, reading)]
    places: Mapping[str, Mapping[str, list[Path]]] = {}
    if by_name:
        alone = {key: paths[0] for key, paths in scene_files.items() if len(paths) == 1}
        if (
            not alone
            or len(alone) < len(scene_files)
            or not all(p.is_dir() for p in alone.values())
        ):
            raise ValueError("`--by-name` goes with one folder each of --hr, --s2, --s1")
        places = {k: {m: list(f) for m, f in v.items()} for k, v in pairs(alone).items()}
    elif scene_files:
        places = {str(next(iter(scene_files.values()))[0]): scene_files}
    for name, inputs in places.items():
        options = (reading.every, reading.cut, reading.bands, reading.mask_clouds)
        drafts.append(scene(name, inputs, *options))
    drafts += synthetic_places(synthetic, seed=seed)
    if not drafts:
        raise ValueError("no source: give images, folders, .npz files, --hr, --s2, --s1, or items")
    return drafts


def _band_names(texts: list[str], modalities: list[str]) -> dict[str, list[str]]:
    """`VV,VH` or `s1=VV,VH` to band names of a modality."""
    from skysense.sensors import MODALITIES

    names: dict[str, list[str]] = {}
    for text in texts:
        key, equals, listed = text.rpartition("=")
        if not equals and len(modalities) > 1:
            raise ValueError(f"--bands {text}: say whose bands, e.g. {modalities[0]}={text}")
        key = key.strip() if equals else next(iter(modalities), "hr")
        if key not in MODALITIES or key in names:
            raise ValueError(f"--bands {text}: expected once each hr=..., s2=..., s1=...")
        names[key] = [name.strip() for name in listed.split(",")]
    return names


def _report(built: "Built", output: Path, left_out: int) -> None:
    """What was made and what was not."""
    by_modality = ", ".join(f"{key} {count}" for key, count in built.modalities.items())
    typer.echo(
        f"{output}: {built.samples} samples ({by_modality}) in {built.shards} shards, "
        f"{built.bytes / 1e6:.1f} MB"
    )
    if built.class_names:
        typer.echo(f"class maps of {', '.join(built.class_names)}")
    if left_out:
        typer.echo(f"left out as listed: {left_out}")
    if built.empty:
        typer.echo(f"left out, all masked: {len(built.empty)} ({_some(built.empty)})")
    if built.bad:
        typer.echo(f"left out, cannot be used: {len(built.bad)}", err=True)
        for name, why in built.bad[:5]:
            typer.echo(f"  {name}: {why}", err=True)


def _some(names: tuple[str, ...]) -> str:
    """The first few names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
