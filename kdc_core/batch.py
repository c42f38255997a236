"""Prediction over folders too large for one machine, as a Ray Data job.

Every machine of the cluster needs this package and its `ray` extra, and the same paths for
images, model file and output folder. Only names and counts pass through Ray; each worker reads
its images and writes its parts itself.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdc_core.data.sources import read_frames
from kdc_core.errors import KdcError
from kdc_core.files import whole_file, write_json
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.rotate import Degrees
from kdc_core.inference.runtimes.choice import GPU
from kdc_core.show.parts import WRITERS, part_name, read_failed, sources_in, write_failed
from kdc_core.show.people_json import frame_json, people_or_error

DEVICES = ("auto", "cpu", "cuda")
THREADS = 1  # of a CPU worker: many images gain more from workers side by side
LARGEST_PART = 64  # images; what is lost of a worker that is killed
STORE_BYTES = 200_000_000  # of a local cluster, which holds names only
CONNECT_SECONDS = 10
INIT_DEATHS = 8  # workers in a row that may die while they start

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Job:
    """How and where to predict.

    Attributes:
        output: folder of the parts, settings.json and failed.jsonl; absolute.
        format: `jsonl` or `parquet`.
        model, runtime, device, confidence: as `Predictor.from_pretrained` takes them. `auto` is
            the CPU; with `cuda` each worker holds one GPU.
        rotate: as `Predictor.rotate`.
    """

    output: Path
    format: str = "jsonl"
    model: str = "kdc_light"
    runtime: str = "auto"
    device: str = "auto"
    confidence: float | None = None
    rotate: Degrees = 0

    def open(self, device: str) -> Predictor:
        """The predictor, on `cpu` or `cuda`."""
        predictor = Predictor.from_pretrained(
            self.model, self.runtime, device, THREADS, self.confidence
        )
        predictor.rotate = self.rotate
        return predictor


@dataclass
class Summary:
    """Numbers of images: done by earlier runs and by this one; people of this one; why
    images failed, by path, over all runs."""

    before: int
    done: int
    persons: int
    failed: dict[str, str]


def predict_batch(
    sources: list[str], job: Job, address: str, workers: int | None, progress: Progress
) -> Summary:
    """Predict the images that no earlier run into the same folder has done.

    Args:
        sources: absolute paths of images.
        job: how and where to.
        address: `local` starts a cluster here; `auto`, host:port or ray://host:port joins one.
        workers: processes that predict; None = as many as the cluster's CPUs or GPUs serve.
        progress: passes on an iterable of the given length.

    Raises:
        KdcError: the folder holds the results of another job or cannot be written, Ray or the
            model cannot be used, or the cluster gave up. What was done until then is kept.
    """
    _check_settings(job)
    before = sources_in(job.output, job.format)
    failed = read_failed(job.output / "failed.jsonl")
    failed |= {s: f"the name {s!r} is not UTF-8: rename it" for s in sources if not _is_text(s)}
    todo = [s for s in sources if s not in before and s not in failed]
    summary = Summary(sum(s in before for s in sources), 0, 0, failed)
    if not todo:
        return summary
    _join(address)  # before a bar is drawn
    try:
        for row in progress(_run(todo, job, address, workers), len(todo)):
            if row["error"]:
                failed[row["source"]] = row["error"]
            elif not (job.output / row["part"]).is_file():
                raise KdcError(
                    f"a worker wrote '{row['part']}', but it is not in '{job.output}' here: "
                    "--output must be a folder that all machines share"
                )
            else:
                summary.done += 1
                summary.persons += row["persons"]
    finally:
        if failed:
            write_failed(job.output / "failed.jsonl", failed)
    return summary


def _join(address: str) -> None:
    """Start a cluster here, or join the one that runs at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise KdcError(f"--ray needs '{error.name}': pip install 'kdc_ros[ray]'") from error

    options: dict[str, Any] = {
        "address": address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # Ray itself tries a dead address for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        handler = signal.getsignal(signal.SIGTERM)
        ray.init(**options)
        signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process with 15
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        raise KdcError(
            f"no Ray cluster at '{address}': expected local, auto, or the host:port or "
            "ray://host:port of a running one (with RAY_AUTH_MODE=token if it asks for a "
            f"token). {error}"
        ) from error


def _run(todo: list[str], job: Job, address: str, workers: int | None) -> Iterable[dict[str, Any]]:
    """Yield source, error, part and persons of every image once its part is written."""
    import ray
    import ray.exceptions

    try:
        if address.startswith("ray://"):  # Ray Data runs only inside a cluster
            task = ray.remote(num_cpus=0)(_predict_all)
            yield from ray.get(task.remote(todo, job, workers))
        else:
            yield from _predict_each(todo, job, workers)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if not isinstance(cause, KdcError | None):
            raise  # a mistake in the code, with the worker's traceback
        reason = str(cause or error).splitlines()[0]  # Ray adds its own advice below
        raise KdcError(
            f"the Ray job ended early: {reason}. The same command goes on from here"
        ) from error
    finally:
        ray.shutdown()


def _predict_all(todo: list[str], job: Job, workers: int | None) -> list[dict[str, Any]]:
    return list(_predict_each(todo, job, workers))


def _predict_each(todo: list[str], job: Job, workers: int | None) -> Iterable[dict[str, Any]]:
    """As `_run`, inside a cluster that is already joined."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    gpus = 1 if job.device.startswith("cuda") else 0
    processor = "GPU" if gpus else "CPU"
    free = int(ray.cluster_resources().get(processor, 0)) // (gpus or THREADS)
    if free == 0:
        raise KdcError(f"the Ray cluster has no {processor}: choose another --device")
    count = workers or free
    # Some parts for each worker, so that the last ones end at about the same time.
    size = max(1, min(LARGEST_PART, len(todo) // (4 * count)))
    # Ray Data restarts actors, and runs their lost tasks again, without limit by default.
    rows = ray.data.from_items(todo, override_num_blocks=-(-len(todo) // size)).map_batches(
        PartWriter,
        batch_size=None,  # one block, one part
        batch_format="numpy",
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=THREADS,
        num_gpus=gpus,
    )
    yield from rows.iter_rows()


class PartWriter:
    """Predicts the images of a block and writes them as one part; lives in a worker.

    Args:
        job: how and where to.
    """

    def __init__(self, job: Job):
        self._job = job
        # Ray shows each worker its own GPU as the first.
        self._predictor = job.open("cuda" if job.device.startswith("cuda") else "cpu")

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        """Names of images (key `item`) to the rows of `_run`, column by column."""
        sources = [str(source) for source in block["item"]]
        part = part_name(sources, self._job.format)
        frames = (frame for source in sources for frame in read_frames(source))
        entries = [frame_json(f, people_or_error(self._predictor, f)) for f in frames]
        errors = {entry["source"]: entry["error"] for entry in entries if "error" in entry}
        persons = Counter({source: 0 for source in sources})
        for entry in entries:
            persons[entry["source"]] += len(entry.get("persons", ()))
        if good := [entry for entry in entries if "error" not in entry]:
            with whole_file(self._job.output / part) as file:
                WRITERS[self._job.format](file, good)
        return {
            "source": sources,
            "error": [errors.get(source, "") for source in sources],
            "part": [part] * len(sources),
            "persons": [persons[source] for source in sources],
        }


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _check_settings(job: Job) -> None:
    """Write what the parts are made with, or compare it: two jobs in one folder would mix."""
    if job.format not in WRITERS:
        raise KdcError(f"no format '{job.format}': expected {' or '.join(WRITERS)}")
    if job.device not in DEVICES:
        raise KdcError(
            f"no device '{job.device}' with Ray, which gives each worker its own GPU: expected "
            f"{', '.join(DEVICES)}"
        )
    # Workers have the runtime that is named; here there may be no GPU.
    named_here = replace(job, runtime="auto") if job.runtime in GPU else job
    predictor = named_here.open("cpu")
    manifest = predictor.runtime.manifest
    settings = {
        "model": manifest.config.name,
        "weights_sha256": manifest.weights_sha256,
        "confidence": predictor.thresholds.confidence,
        "rotate": job.rotate,
        "format": job.format,
        "keypoints": list(predictor.skeleton.keypoints),
    }
    predictor.close()
    path = job.output / "settings.json"
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise KdcError(f"cannot use '{job.output}' for the parts: {error}") from error
    if there is None:
        write_json(path, settings)
    elif not isinstance(there, dict):
        raise KdcError(
            f"cannot use '{job.output}' for the parts: expected an object in its settings.json, "
            f"got {type(there).__name__}. Choose another --output"
        )
    elif there != settings:
        odd = [key for key in settings if there.get(key) != settings[key]]
        raise KdcError(
            f"'{job.output}' holds the results of another job: expected the same {', '.join(odd)} "
            "as in its settings.json. Choose another --output"
        )
