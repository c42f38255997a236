"""Samples that training draws: which, how often, and by which process."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import unittest.mock
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from kdc_core.codec.skeleton import COCO17
from kdc_core.config import ConfigError
from kdc_core.config_file import load_preset
from kdc_core.stopping import stop_by_signal
from kdc_core.training.evaluation import Evaluation, EvaluationImages
from kdc_core.training.samples import TrainingSamples, collate

from .conftest import SAMPLES
from .runs import small


def test_the_same_number_gives_the_same_sample() -> None:
    config = load_preset("kdc_light")
    first, second = (TrainingSamples([str(SAMPLES)], config) for _ in range(2))
    for number in (0, 5, 23):
        a, b = first[number], second[number]
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.targets.embedding, b.targets.embedding)
    again = first[first.num_images]
    assert not torch.equal(first[0].image, again.image), "another epoch, another crop"


def test_a_loader_process_that_is_not_forked_is_given_the_samples() -> None:
    samples = TrainingSamples([str(SAMPLES)], load_preset("kdc_light"))
    given = pickle.loads(ForkingPickler.dumps(samples))
    assert torch.equal(given[0].image, samples[0].image)
    samples.left_out[1] = 1
    assert given.left_out[1] == 1


class Process(EvaluationImages):
    """What a loader process does about SIGINT, and OpenCV's threads there."""

    def __getitem__(self, place: int) -> Any:
        return signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1), cv2.getNumThreads()


def test_loader_processes_of_an_evaluation_leave_signals_and_cores_to_training(
    tmp_path: Path,
) -> None:
    evaluation = Evaluation(str(SAMPLES), COCO17, tmp_path, unittest.mock.Mock(), {})
    evaluation.images = Process(evaluation.images.annotations, evaluation.images.images)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        with stop_by_signal():
            process = next(iter(evaluation.loader(1)))
    finally:
        cv2.setNumThreads(threads)
    assert process == (signal.SIG_IGN, -1, 1)


def test_samples_of_a_batch_are_stacked() -> None:
    samples = TrainingSamples([str(SAMPLES)], load_preset("kdc_light"))
    batch = collate([samples[0], samples[1]])
    assert batch.image.shape == (2, 3, 384, 384)
    assert batch.targets.heat.shape == batch.weights.heat.shape == (2, 18, 96, 96)
    assert batch.instances.cover.shape == (2, 8, 96, 96)
    assert batch.numbers == [0, 1]


def test_a_broken_image_is_left_out_of_training(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted(data_set.with_name("few").iterdir())[:4]:
        path.write_bytes(b"broken")
    samples = TrainingSamples([str(data_set)], load_preset("kdc_light"))
    for number in range(samples.num_images):
        assert samples[number].image.shape == (1, 3, 384, 384)
    assert "left out of training" in caplog.text


def test_an_error_of_the_program_is_no_broken_image(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = TrainingSamples([str(SAMPLES)], load_preset("kdc_light"))

    def wrong(*_: object) -> None:
        raise ValueError("not the image's fault")

    monkeypatch.setattr("kdc_core.training.samples.read_sample", wrong)
    with pytest.raises(ValueError, match="fault"):
        samples[0]


def test_a_mixture_draws_each_data_set_by_its_weight(data_set: Path, tmp_path: Path) -> None:
    two = tmp_path / "two.json"
    two.write_text(data_set.read_text())
    (tmp_path / "two").symlink_to(data_set.with_name("few"))
    config = load_preset("kdc_light", ["train.mixture=[3, 1]"])
    samples = TrainingSamples([str(data_set), str(two)], config)
    half = samples.num_images // 2
    first = sum(samples._place(number) < half for number in range(2000))
    assert 1400 < first < 1600
    with pytest.raises(ConfigError, match="2 weights for 1 data sets"):
        TrainingSamples([str(data_set)], config)


def test_an_image_of_a_crowd_alone_is_left_out(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody on it can be seen, nor be pasted into another."""
    content = json.loads(data_set.read_text())
    crowded = content["images"][0]["id"]
    for entry in content["annotations"]:
        entry["iscrowd"] |= int(entry["image_id"] == crowded)
    data_set.write_text(json.dumps(content))
    caplog.set_level(logging.INFO)
    samples = TrainingSamples([str(data_set)], small("train.paste=1.0"))
    assert samples.num_images == 7 and "1 images without people" in caplog.text
    assert all(len(samples[number].image) == 1 for number in range(20))


@pytest.mark.parametrize("change", ["train.longer_side=[760, 300]", "train.mixture=[3, 1]"])
def test_settings_are_refused_before_a_data_set_is_read(change: str) -> None:
    with pytest.raises(ConfigError, match=change.partition("=")[0]):
        TrainingSamples(["nowhere"], small(change))
