"""The small scripts of tools/."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import torch
from core.conftest import SAMPLES

from kdc_core.config_file import load_preset
from kdc_core.data.masks import decode_mask, read_mask
from kdc_core.data.reading import read_annotations
from kdc_core.inference.model_files import find_model
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model, save_model

TOOLS = Path(__file__).parents[2] / "tools"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOLS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_hold_out_parts_a_data_set_in_two(tmp_path: Path) -> None:
    done = run("hold_out.py", SAMPLES, 3, tmp_path / "parts")
    assert done.returncode == 0, done.stderr
    whole = json.loads((SAMPLES / "annotations.json").read_text())
    train, held = (
        json.loads((tmp_path / f"parts/{n}.json").read_text()) for n in ("train", "held")
    )
    assert held["images"] == whole["images"][::3]
    for key in ("images", "annotations"):
        assert sorted(e["id"] for e in train[key] + held[key]) == sorted(
            e["id"] for e in whole[key]
        )
    assert train["categories"] == held["categories"] == whole["categories"]
    for part in (train, held):
        ids = {image["id"] for image in part["images"]}
        assert {entry["image_id"] for entry in part["annotations"]} <= ids
    assert (tmp_path / "parts/held" / held["images"][0]["file_name"]).is_file()


def test_hold_out_names_what_is_missing(tmp_path: Path) -> None:
    done = run("hold_out.py", tmp_path / "absent", 3, tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "absent" in done.stderr


def test_nothing_of_a_data_set_is_overwritten_by_its_parts(tmp_path: Path) -> None:
    """The images of a part are linked under its name, which may be that of the images read."""
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(SAMPLES / "annotations.json", own / "train.json")
    with tarfile.open(own / "train.tar", "w") as tar:
        tar.add(SAMPLES / "000000000885.jpg", "000000000885.jpg")
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    with gzip.open(own / "val.json.gz", "wb") as packed:
        packed.write(before["train.json"])
    (own / "val.tar").symlink_to("train.tar")
    model = find_model("kdc_light", (".safetensors",))
    for script, *arguments in (
        ("hold_out.py", own / "train.json", 3, own),
        ("hold_out.py", own / "val.json.gz", 3, own),
        ("pseudo_masks.py", model, own / "train.json", own / "train.json"),
        ("pseudo_masks.py", model, own / "val.json.gz", own / "train.json"),
    ):
        done = run(script, *arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert {name: (own / name).read_bytes() for name in before} == before
        assert not (own / "train.tar").is_symlink()


def test_losses_of_several_stages_are_drawn(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(
            "step,epoch,loss,keypoint_ap\n10,0,2.0,\n20,0,1.0,\n20,0,,0.1\n"
        )
    done = run("plot_metrics.py", tmp_path / "one.csv", tmp_path / "two.csv", tmp_path / "l.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")


def test_people_with_keypoints_alone_get_a_models_masks_where_they_fill_the_box(
    tmp_path: Path,
) -> None:
    whole = json.loads((SAMPLES / "annotations.json").read_text())
    entries = whole["annotations"]
    for place, entry in enumerate(entries):
        entry["id"] = place  # from 0, as some exports count: read as if they counted from 1
    truth = {place + 1: entry for place, entry in enumerate(entries) if entry["num_keypoints"]}
    moved = whole["annotations"][0]
    stripped = [
        {key: value for key, value in entry.items() if key != "segmentation"}
        if entry["num_keypoints"]
        else entry
        for entry in whole["annotations"]
    ]
    stripped[0]["bbox"] = [x - 40 for x in moved["bbox"]]  # no mask can fill this one
    data = tmp_path / "bare.json"
    data.write_text(json.dumps({**whole, "annotations": stripped}))
    (tmp_path / "bare").symlink_to(SAMPLES)
    model = find_model("kdc_light", (".safetensors",))
    done = run("pseudo_masks.py", model, data, tmp_path / "out.json", "--scales", "320")
    assert done.returncode == 0, done.stderr
    found = read_annotations(tmp_path / "out.json")
    scored = []
    for image in found.images:
        for person in image.people:
            if person.id not in truth:
                assert person.segmentation is not None, "masks that were there stay"
            elif person.segmentation is not None:
                ours = decode_mask(person.segmentation, image.size)
                polygons = read_mask(truth[person.id]["segmentation"], image.size, print)
                assert polygons is not None
                theirs = decode_mask(polygons, image.size)
                scored.append((ours & theirs).sum() / (ours | theirs).sum())
    assert len(scored) > len(truth) / 2 and sum(scored) / len(scored) > 0.75
    entries = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert "segmentation" not in entries[0]
    assert (tmp_path / "out").is_dir(), "the images lie beside it"


def test_weights_are_averaged_with_those_of_the_start(tmp_path: Path) -> None:
    start, trained, output = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "c"))
    network, provenance = load_model(find_model("kdc_light", (".safetensors",)))
    save_model(network, trained, provenance)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    for values in network.state_dict().values():
        if values.is_floating_point():
            values.mul_(0.5)
    save_model(network, start, {})
    done = run("average_weights.py", trained, start, output, "--weight", 0.25)
    assert done.returncode == 0, done.stderr
    average, told = load_model(output)
    assert (
        told["averaged_with"] == {"a.safetensors": 0.25} and told["start"] == provenance["start"]
    )
    for name, values in average.state_dict().items():
        wanted = before[name] * (0.875 if values.is_floating_point() else 1)
        torch.testing.assert_close(values, wanted, rtol=2e-3, atol=1e-4)


def test_weights_of_another_structure_are_not_averaged(tmp_path: Path) -> None:
    model, other = find_model("kdc_light", (".safetensors",)), tmp_path / "other.safetensors"
    save_model(KDC(load_preset("kdc_light", ["network.segnet_depth=1"])), other, {})
    done = run("average_weights.py", model, other, tmp_path / "out.safetensors")
    assert done.returncode == 2 and "networks of other structure" in done.stderr
    assert not (tmp_path / "out.safetensors").exists()


def test_powers_of_scores_are_found_where_there_are_people(tmp_path: Path) -> None:
    done = run("fit_scores.py", "kdc_light", SAMPLES)
    assert done.returncode == 0, done.stderr
    score, mask_score = done.stdout.strip().splitlines()[-2:]
    assert score.startswith("SCORE_POWERS = (") and mask_score.startswith("MASK_SCORE_POWERS = ")
    for line in (score, mask_score):
        powers = [float(power) for power in line.split("(")[1].rstrip(")").split(", ")]
        assert len(powers) == 5 and all(abs(power) < 100 for power in powers)
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    whole = json.loads((SAMPLES / "annotations.json").read_text())
    (nobody / "annotations.json").write_text(json.dumps({**whole, "annotations": []}))
    done = run("fit_scores.py", "kdc_light", nobody)
    assert done.returncode == 2 and "no person to score" in done.stderr


def test_images_of_a_folder_with_a_dot_are_linked_under_the_parts_names(tmp_path: Path) -> None:
    (tmp_path / "set.v3").mkdir()
    for name in ("annotations.json", "000000000885.jpg"):
        shutil.copy(SAMPLES / name, tmp_path / "set.v3" / name)
    done = run("hold_out.py", tmp_path / "set.v3", 3, tmp_path / "parts")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        *("train", "train.json", "held", "held.json"),
    }
