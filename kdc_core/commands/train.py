"""`kdc train`: train a preset, or go on training in the same folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from kdc_core.commands.models import weights_of
from kdc_core.commands.options import Category, seconds
from kdc_core.commands.outputs import check_outputs


def train(
    preset: Annotated[str, Argument(help="Preset's name, or a .yaml or .json file.")],
    data: Annotated[
        list[str],
        Option(help="Folder of a data set, or annotations with images of that name beside it."),
    ],
    output: Annotated[Path, Option(help="Folder of the run; the same goes on with it.")],
    images: Annotated[
        list[str] | None,
        Option(help="Folder or tar of the images, one for each --data; default: as laid out."),
    ] = None,
    val: Annotated[str | None, Option(help="Data set to evaluate on.")] = None,
    val_images: Annotated[
        str | None, Option(help="Folder or tar of the images of --val; default: as laid out.")
    ] = None,
    category: Category = None,
    start: Annotated[
        str | None,
        Option(help="Shipped model or file; default: what the preset's train.start names."),
    ] = None,
    change: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.batch=4."),
    ] = None,
    max_time: Annotated[
        float | None,
        Option(metavar="TIME", parser=seconds, help="Stop after so long, e.g. 90m, 2h, 45s."),
    ] = None,
    threads: Annotated[int | None, Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a model. Stopped by --max-time, Ctrl-C or anything else, the same command goes on.

    --data, --images and --set may be given again: `--data A --data B`.
    """
    if images and len(images) != len(data):
        raise typer.BadParameter(
            f"--images: expected one for each --data, {len(data)}, got {len(images)}"
        )
    check_outputs(folders=[output], inputs=[*data, *(images or []), val, val_images])
    import torch

    from kdc_core.config_file import load_preset
    from kdc_core.inference.runtimes.threads import default_threads
    from kdc_core.training.run import train as run

    config = load_preset(preset, change)
    weights = start or config.train.start
    path = str(weights_of(weights)) if weights else None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for noisy in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    torch.set_num_threads(threads or default_threads())
    run(
        config,
        data,
        output,
        path,
        val,
        max_time,
        images=images,
        val_images=val_images,
        category=category,
        device=device,
    )
