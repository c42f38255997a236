"""`kdc tune`: settings of decode for a model, written into a new model file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from kdc_core.commands.models import weights_of
from kdc_core.commands.options import Category, Json, seconds
from kdc_core.commands.outputs import check_outputs, check_suffix
from kdc_core.commands.printing import cell, print_table, saved
from kdc_core.evaluation.figures import ROWS
from kdc_core.show.progress import track


def tune(
    model: Annotated[str, Argument(help="Shipped model or .safetensors file.")],
    data: Annotated[
        str, Option(help="Data set to tune on, as for kdc train; never one to report figures of.")
    ],
    output: Annotated[Path, Option(help=".safetensors file to write.")],
    images: Annotated[
        str | None, Option(help="Folder or tar of the images; default: as laid out.")
    ] = None,
    category: Category = None,
    trials: Annotated[int, Option(min=1, help="Settings to try.")] = 60,
    max_time: Annotated[
        float | None,
        Option(metavar="TIME", parser=seconds, help="Begin no trial after so long, e.g. 90m."),
    ] = None,
    json_file: Json = None,
) -> None:
    """Choose settings of decode on some images of a data set, judged on others of it."""
    check_outputs([output, json_file], inputs=[data, images, model])
    check_suffix(output, ".safetensors")
    from kdc_core.evaluation.tune import tune as run

    path = weights_of(model)
    done = run(path, data, output, trials, max_time, images, _progress, category)
    rows = [
        (label, *(cell(figures.get(name)) for name in ROWS))
        for label, figures in (
            ("tuned on, before", done.before),
            ("tuned on, after", done.after),
            ("others, before", done.held_out_before),
            ("others, after", done.held_out_after),
        )
    ]
    lost = [
        (w.key, f"{w.before:.3g}", f"{w.after:.3g}", f"{w.tuned:+.4f}", f"{w.held_out:+.4f}")
        for w in done.worth
    ]
    worth = [vars(one) for one in done.worth]
    with saved(json_file, {**vars(done), "config": done.config.model_dump(), "worth": worth}):
        title = f"{output}: AP after {done.trials} trials"
        print_table(title, ("images", *ROWS), rows[:2], rows[2:])
        print_table(
            "what each setting is worth: mean AP lost by setting it back",
            ("setting", "before", "after", "tuned on", "others"),
            lost,
        )


def _progress(label: str) -> Any:
    return partial(track, label=label)
