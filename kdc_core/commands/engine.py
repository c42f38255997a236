"""`kdc engine`: build engines for TensorRT beforehand, and look after those that are kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from kdc_core.commands.options import choice
from kdc_core.errors import KdcError
from kdc_core.show.progress import build_bar
from kdc_core.stopping import Stopped

if TYPE_CHECKING:
    from kdc_core.inference.engine.entries import Entry
    from kdc_core.inference.engine.key import Target
    from kdc_core.inference.manifest import Precision

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Folder of engines; default: the user's.")
]
Name = Annotated[str, typer.Argument(help="Beginning of its name, as `list` shows it.")]


@app.command("build")
def build(
    model: Annotated[str, typer.Argument(help="Shipped model, or an .onnx file of ours.")],
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the frames.")] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Frames of many sizes: SMALLEST,USUAL,LARGEST, each HEIGHTxWIDTH."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Compute capability such as 8.9, where its GPU is not at hand."),
    ] = None,
    precision: Annotated[
        str,
        choice(
            *("auto", "fp32", "fp16", "int8-trt"),
            help="Of the network: fp32, fp16, int8-trt, or what the node takes by itself.",
        ),
    ] = "auto",
    cache: CacheFolder = None,
) -> None:
    """Build the engine of a model for one size of frames, or take it from the cache."""
    from kdc_core.inference.engine.cache import Cache, get_engine
    from kdc_core.inference.engine.key import Target
    from kdc_core.inference.engine.shapes import Shapes, parse_profile, parse_size
    from kdc_core.inference.model_files import files_to_try

    if (size is None) == (profile is None):
        given = "none" if size is None else "both"
        raise KdcError(f"expected either --size HEIGHTxWIDTH or --profile, got {given}")
    shapes = parse_profile(profile) if profile else Shapes.fixed(parse_size(size or ""))
    _, path = next(files_to_try(model, "tensorrt", cast("Precision", precision)))
    place = Target.named(target) if target else _at_hand()
    with build_bar() as progress, saying_so_when_stopped():
        engine = get_engine(path, shapes, place, cache=Cache(cache, progress=progress))
    how = "built" if engine.built else "already there, whole and unchanged"
    typer.echo(f"'{engine.path}', {engine.sidecar.engine_bytes / 1e6:.1f} MB")
    typer.echo(f"{how}, {engine.seconds:.1f} s; for {engine.sidecar.key.place}")


@app.command("list")
def list_engines(cache: CacheFolder = None) -> None:
    """The engines that are kept, the newest first; each is checked. `inspect` says more."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from kdc_core.inference.engine.entries import list_entries

    folder = _folder(cache)
    table = Table("name", "model", "frames", "precision", "made for", "made by", "MB", "state")
    table.columns[0].no_wrap = True
    for entry in list_entries(folder):
        table.add_row(*map(escape, _row(entry)))
    typer.echo(f"engines in '{folder}'")
    Console().print(table)


@app.command("inspect")
def inspect(name: Name, cache: CacheFolder = None) -> None:
    """What an engine was made of and for, whether it is unchanged, and whether it runs here."""
    from kdc_core.inference.engine.entries import find_entry

    entry = find_entry(_folder(cache, needed=True), name)
    typer.echo(f"{'name':18} {entry.digest}")
    if entry.engine is not None:
        sidecar = entry.engine.sidecar
        shown = sidecar.model_dump(exclude={"key", "header"})
        for field, value in (sidecar.key.model_dump(exclude_none=True) | shown).items():
            typer.echo(f"{field:18} {sidecar.key.shapes if field == 'shapes' else value}")
    typer.echo(f"{'unchanged':18} {'yes' if entry.fault is None else f'no: {entry.fault}'}")
    if entry.fault is None:
        reason = entry.why_not_here
        typer.echo(f"{'runs here':18} {'yes' if reason is None else f'no: {reason}'}")


@app.command("clean")
def clean(
    cache: CacheFolder = None,
    everything: Annotated[bool, typer.Option("--all", help="Whole engines too.")] = False,
) -> None:
    """Remove broken engines, those of other versions, and what killed builders left."""
    from kdc_core.inference.engine import entries

    folder = _folder(cache)
    before = _used(folder)
    removed, busy = entries.clean(folder, everything)
    freed = max(0, before - _used(folder)) / 1e6
    typer.echo(f"removed {len(removed)} files, {freed:.1f} MB, from '{folder}'")
    for lock in busy:
        typer.echo(f"left alone, in use by another process: {lock.stem[:12]}")


@contextlib.contextmanager
def saying_so_when_stopped() -> Iterator[None]:
    """A signal ends the command with a sentence."""
    try:
        yield
    except Stopped:
        typer.echo("engine build cancelled: nothing was kept of it", err=True)
        raise


def _at_hand() -> Target:
    from kdc_core.inference.engine.key import Target

    try:
        return Target.at_hand()
    except KdcError as error:
        raise KdcError(
            f"{error}; to build for a GPU that is not here, name its compute capability, such as "
            "--target 8.9 (TensorRT-RTX only)"
        ) from None


def _folder(cache: Path | None, needed: bool = False) -> Path:
    """The folder of engines; of the user's own, if absent and not needed, a sentence is enough."""
    from kdc_core.inference.engine.folder import default_folder, open_folder

    folder = cache or default_folder()
    if cache is None and not needed and not os.path.lexists(folder):
        typer.echo(f"no engines: nothing was built yet, '{folder}' is not there")
        raise typer.Exit
    return open_folder(folder, create=False)


def _used(folder: Path) -> int:
    used = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            used += path.lstat().st_size
    return used


def _row(entry: Entry) -> list[str]:
    if entry.engine is None:
        return [entry.digest[:12], *["?"] * 6, f"broken: {entry.fault}"]
    sidecar = entry.engine.sidecar
    key = sidecar.key
    state = "runs here" if entry.why_not_here is None else "not for here"
    return [
        entry.digest[:12],
        sidecar.model,
        str(key.shapes),
        key.precision,
        key.place,
        f"{key.family} {key.version}",
        f"{sidecar.engine_bytes / 1e6:.1f}",
        state if entry.fault is None else f"broken: {entry.fault}",
    ]
