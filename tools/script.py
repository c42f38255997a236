"""What the scripts of this folder share: how they end, and how they write a data set."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from kdc_core.commands.outputs import check_outputs
from kdc_core.errors import KdcError


def beside(annotations: Path, images: Path) -> Path:
    """The link to a folder or tar of images that lies beside annotations to be written."""
    return annotations.with_suffix(".tar" if images.is_file() else "")


def check_data_set(annotations: Path, images: Path, source: Path) -> None:
    """Refuse to write annotations, with a link to their images beside them, over what is there.

    Args:
        annotations: .json file to be written.
        images: folder or tar to be linked.
        source: annotations that are read.

    Raises:
        KdcError: the source, or what is no link, would be overwritten.
    """
    check_outputs([annotations], inputs=[source])
    link = beside(annotations, images)
    if link.exists() and not link.is_symlink():
        raise KdcError(
            f"the images would be linked as '{link}', and that is there already: give another "
            "output"
        )


def link_images(annotations: Path, images: Path) -> None:
    """Link the images beside annotations, in place of an earlier link."""
    link, target = beside(annotations, images), images.resolve()
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def run(main: Callable[..., None]) -> None:
    """Run a script's function with the arguments of the command line: what a user can mend is one
    line and exit status 2."""
    try:
        typer.run(main)
    except (KdcError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
