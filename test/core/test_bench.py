"""Benchmarks: what they measure. How fast it is here, no test asks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kdc_core.bench.data import bench_data
from kdc_core.bench.frames import cut_out, one_person_image, paste_people
from kdc_core.bench.predictor import bench_predictor, interleave

from .conftest import make_people, make_person
from .test_structure import blocked


def test_calls_are_timed_in_turn_after_warming_up() -> None:
    made: list[str] = []
    calls = {"one": lambda: made.append("one"), "other": lambda: made.append("other")}
    times = interleave(calls, rounds=2, warm_up=1)
    assert made == ["one", "other"] * 3
    assert {name: values.shape for name, values in times.items()} == {"one": (2,), "other": (2,)}


def test_people_are_pasted_beside_each_other() -> None:
    one, many = one_person_image(), paste_people(30)
    assert one.shape == many.shape == (480, 640, 3)
    cells = (many != 114).any(2).reshape(3, 160, 10, 64).mean((1, 3))
    assert (cells > 0.05).all()
    assert np.array_equal(one[:160, :64], many[:160, :64])
    assert (one[160:] == 114).all() and (one[:, 64:] == 114).all()


@pytest.mark.timed
def test_predictor_is_measured_on_the_people_it_should_find() -> None:
    figures = bench_predictor("kdc_light", 3)
    assert set(figures) == {
        "network_ms",
        "decode_over_network",
        "people_30_over_1",
        "end_to_end_over_network",
        "over_movenet",
        "frames_per_second",
        "found_1",
        "found_30",
        "scoring_over_predictor",
        "drawing_over_predictor",
        "rounds",
    }
    assert figures["found_1"] == 1 and figures["found_30"] >= 20
    assert figures["over_movenet"] > 0 and figures["rounds"] == 3


@pytest.mark.all
@pytest.mark.timed
def test_training_samples_and_the_wait_for_them_are_measured() -> None:
    figures = bench_data(None, 1)
    assert set(figures) == {
        "samples_per_second_per_core",
        "targets_ms",
        "batch_targets_ms",
        "batch_targets_over_targets",
        "loader_share",
        "step_ms",
    }
    assert 0 <= figures.pop("loader_share") <= 1
    assert min(figures.values()) > 0


def test_without_torch_the_command_says_what_to_install() -> None:
    script = blocked("torch") + (
        "from kdc_core.__main__ import main\nsys.argv = ['kdc', 'bench', 'predictor']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr == "error: this command needs 'torch': pip install 'kdc_ros[train]'\n"


def test_people_are_cut_out_although_their_box_begins_outside() -> None:
    keypoints = make_person(0, 10, 60)
    sample = make_people([keypoints], (200, 200), [[-3.0, -2.0, 60.0, 150.0]])
    sample.masks[0, :150, :60] = True
    (cutout,) = cut_out(sample, 80)
    assert cutout.image.shape == (150, 60, 3) and cutout.mask.shape == (150, 60)
