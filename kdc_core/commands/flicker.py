"""`kdc flicker`: do people stay found from frame to frame?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def flicker(
    videos: Annotated[list[str], typer.Argument(help="Videos.")],
    model: Annotated[str, typer.Option(help="Shipped model or file.")] = "kdc_light",
    confidence: Annotated[
        float | None, typer.Option(help="Least score of a person; default: the model's.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Count persons missing from a frame of a video though both its neighbours show them."""
    from rich.console import Console
    from rich.table import Table

    from kdc_core.data.sources import count_frames, read_frames
    from kdc_core.errors import KdcError
    from kdc_core.evaluation.flicker import count_flicker
    from kdc_core.files import write_json
    from kdc_core.inference.predictor import Predictor
    from kdc_core.show.progress import track

    predictor = Predictor.from_pretrained(model, confidence=confidence)
    table = Table(title=f"{model}: persons missing between two frames that show them")
    for column in ("video", "frames", "expected", "missing", "share", "frames with a miss"):
        left = column == "video"
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    figures = {}
    for video in videos:
        frames = track(read_frames(video), count_frames(video), Path(video).name)
        found = count_flicker(predictor(f.image) for f in frames if f.image is not None)
        if found.frames < 3:
            raise KdcError(f"'{video}' gave {found.frames} frames, expected three or more")
        figures[video] = {**vars(found), "share": round(found.share, 4)}
        table.add_row(
            Path(video).name,
            str(found.frames),
            str(found.expected),
            str(found.missing),
            f"{found.share:.3f}",
            str(found.frames_with_missing),
        )
    Console().print(table)
    if json_file is not None:
        write_json(json_file, figures)
