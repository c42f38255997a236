"""Outputs that cannot be written, or are inputs, are refused before a command's work."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer

from kdc_core.cli import COMMANDS, app
from kdc_core.commands.outputs import check_outputs
from kdc_core.errors import KdcError

from .commands import assert_refused, kdc, kdc_process
from .conftest import SHARED

EVALUATE = "evaluate --annotations {d}/a.json --images {d}"
# Every command with every option of an output; {o} is the output, {d} a folder with inputs.
FILES = [
    "predict {d}/a.jpg --json {o}",
    *(f"{EVALUATE} {option} {{o}}" for option in ("--json", "--results", "--curve")),
    "data check {d}/a.json --images {d} --json {o}",
    "data check {d}/a.json --images {d} --sheet {o}",
    "export {d}/m.safetensors --output {o}",
    "export {d}/m.safetensors --preset kdc_light --output {o}",
    "ablate edges --annotations {d}/a.json --images {d} --json {o}",
    "ablate edges --annotations {d}/a.json --images {d} --plot {o}",
    *(
        f"paper {table} --model m --annotations {{d}}/a.json --images {{d}} --json {{o}}"
        for table in ("table1", "table3", "table4")
    ),
    "paper figure4 --model m --annotations {d}/a.json --images {d} --output {o}",
    "paper figure5 --model m --annotations {d}/a.json --images {d} --output {o}",
    *(
        f"paper {figure} --model m --annotations {{d}}/a.json --images {{d}} --output {{d}}/n.png "
        "--json {o}"
        for figure in ("figure4", "figure5")
    ),
    *(
        f"limits m --annotations {{d}}/a.json --images {{d}} {option} {{o}}"
        for option in ("--json", "--plot")
    ),
    "flicker {d}/v.mp4 --json {o}",
    "tune {d}/m.safetensors --data {d} --output {d}/n.safetensors --json {o}",
    "tune {d}/m.safetensors --data {d} --output {o}",
    *(f"bench {what} --json {{o}}" for what in ("predictor", "node", "data", "runtimes", "ids")),
    "bench runtimes --plot {o}",
]
FOLDERS = [
    "predict {d}/a.jpg --output {o}",
    f"{EVALUATE} --report {{o}}",
    "paper table2 --model m --annotations {d}/a.json --images {d} --output {o}",
    "train kdc_light --data {d} --output {o}",
]


OPTIONS = {"--json", "--results", "--curve", "--report", "--sheet", "--plot", "--output"}


def options(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command below one with every option that names an output."""
    for option in command.params:
        for name in OPTIONS & set(option.opts):
            yield " ".join((*path, name))
    for name, below in getattr(command, "commands", {}).items():
        yield from options(below, (*path, name))


def test_every_option_of_an_output_is_tested_here() -> None:
    tested = []
    for template in FILES + FOLDERS:
        words = template.split()
        command = words[: 2 if words[0] in ("data", "paper", "bench") else 1]
        tested += [" ".join((*command, word)) for word in words if word in OPTIONS]
    # Those of other packages join where a test of this process asked for one.
    joined = {entry.name for entry in entry_points(group=COMMANDS)}
    ours = {o for o in options(typer.main.get_command(app)) if o.split()[0] not in joined}
    assert ours <= set(tested)


@pytest.fixture
def inputs(samples: Path, tmp_path: Path) -> Path:
    """A folder in which every input of the commands above has its name."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    image = next(samples.glob("*.jpg"))
    for name, source in {"a.jpg": image, "v.mp4": samples / "people.mp4"}.items():
        shutil.copy(source, folder / name)
    for name in ("a.json", "m.safetensors"):
        (folder / name).write_text("{}")
    return folder


def words(command: str, folder: Path, output: Path) -> list[str]:
    return [word.format(d=folder, o=output) for word in command.split()]


@pytest.mark.parametrize("command", FILES)
def test_a_file_in_no_folder_is_refused(command: str, inputs: Path, tmp_path: Path) -> None:
    begun = time.process_time()
    output = tmp_path / "none" / "o.png"
    assert_refused(
        kdc(*words(command, inputs, output)), f"cannot write '{output}': there is no folder"
    )
    assert time.process_time() - begun < 2
    folder = kdc(*words(command, inputs, inputs))
    assert folder.returncode == 2 and "expected" in folder.stderr


@pytest.mark.parametrize(
    "command",
    [
        c
        for c in FILES
        if c.endswith(("--curve {o}", "--plot {o}", "--output {o}"))
        and not c.startswith(("export", "tune"))
    ],
)
def test_what_draws_is_missed_before_the_work(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = kdc(*words(command, inputs, tmp_path / "o.png"))
    assert_refused(done, "needs 'matplotlib': pip install 'kdc_ros[train]'")


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_below_a_file_is_refused(command: str, inputs: Path) -> None:
    output = inputs / "a.json" / "out"
    assert_refused(kdc(*words(command, inputs, output)), f"cannot write into '{output}'")


@pytest.mark.parametrize("command", FOLDERS)
@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_of_inputs_is_no_output(command: str, linked: bool, inputs: Path) -> None:
    output = inputs
    if linked:
        output = inputs.with_name("link")
        output.symlink_to(inputs)
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    assert_refused(
        kdc(*words(command, inputs, output)),
        f"'{output}' would overwrite what is read from '{inputs}'",
    )
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize("linked", [False, True])
def test_an_input_is_no_output(command: str, linked: bool, inputs: Path) -> None:
    if "bench" in command:
        pytest.skip("reads nothing")
    named = next(word for word in command.split() if word.startswith("{d}/"))
    source = Path(named.format(d=inputs))
    plot = "figure" in command and command.endswith("--output {o}")
    if plot or command.endswith(("--curve {o}", "--plot {o}", "--sheet {o}")):
        source = source.with_suffix(".png")  # which an image of the folder may be
        source.write_bytes(b"an image")
    output = source
    if linked:
        output = inputs.with_name(f"link{source.suffix}")
        output.symlink_to(source)
    done = kdc(*words(command, inputs, output))
    assert_refused(done, f"'{output}' would overwrite what is read from")


MODEL = "{d}/m.safetensors"


@pytest.mark.parametrize(
    "command",
    [
        f"predict {{d}}/a.jpg --model {MODEL} --json {{o}}",
        *(f"{EVALUATE} --model {MODEL} {option} {{o}}" for option in ("--json", "--results")),
        f"flicker {{d}}/v.mp4 --model {MODEL} --json {{o}}",
        f"limits {MODEL} --annotations {{d}}/a.json --images {{d}} --json {{o}}",
        f"ablate sigma --model {MODEL} --annotations {{d}}/a.json --images {{d}} --json {{o}}",
        *(
            f"paper {what} --model {MODEL} --annotations {{d}}/a.json --images {{d}} --json {{o}}"
            for what in ("table1", "table3", "table4")
        ),
        *(f"bench {of} --model {MODEL} --json {{o}}" for of in ("predictor", "runtimes", "ids")),
    ],
)
def test_the_model_is_an_input_too(command: str, inputs: Path) -> None:
    model = inputs / "m.safetensors"
    assert_refused(kdc(*words(command, inputs, model)), f"'{model}' would overwrite what is read")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("export {d}/m.safetensors --output {d}/mine", "expected a name ending in .onnx"),
        (
            "tune {d}/m.safetensors --data {d} --output {d}/t.onnx",
            "expected a name ending in .safetensors",
        ),
    ],
)
def test_a_model_file_has_the_ending_by_which_it_is_opened(
    command: str, reason: str, inputs: Path
) -> None:
    assert_refused(kdc(*words(command, inputs, inputs)), reason)


def test_an_overlay_beside_a_linked_image_would_overwrite_it(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.jpg").symlink_to(inputs / "a.jpg")
    for output in (inputs, tmp_path / "links"):
        done = kdc("predict", tmp_path / "links" / "b.jpg", "--output", output)
        assert_refused(done, f"'{output}' would overwrite")


def used_by_children() -> float:
    """Seconds of processors that processes of this one took, of those that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared beside the checkout")
def test_the_case_of_a_folder_into_itself(tmp_path: Path) -> None:
    case = SHARED / "cases" / "annotations" / "predict_output_is_input"
    folder = tmp_path / "case"
    shutil.copytree(case, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    begun = used_by_children()
    done = kdc_process("predict", folder, "--output", folder)
    assert_refused(done, "would overwrite")
    assert used_by_children() - begun < 5
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_tried_leaves_nothing(tmp_path: Path) -> None:
    there = tmp_path / "o.json"
    there.write_text("from before")
    check_outputs(
        [there, None], [tmp_path / "p.svg"], [tmp_path / "a" / "b" / "c"], [tmp_path / "x"]
    )
    assert list(tmp_path.iterdir()) == [there] and there.read_text() == "from before"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 256, "File name too long"),
        ("a\0b", "null"),
        ("", "a regular file"),
        (".", "a regular file"),
    ],
)
def test_names_that_no_file_can_have(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(KdcError, match=reason):
        check_outputs([tmp_path / name])


def test_nothing_is_written_to_stdout() -> None:
    with pytest.raises(KdcError, match="cannot write '-': expected the name of a file"):
        check_outputs([Path("-")])


def test_devices_and_broken_links_are_no_files(tmp_path: Path) -> None:
    """Renaming a file onto /dev/null would do away with it."""
    # What is under /dev/stdout may be an ordinary file.
    for name in ("/dev/null", "/dev/stdout"):
        with pytest.raises(KdcError, match="a regular file"):
            check_outputs([name])
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KdcError, match="is not a folder"):
        check_outputs(folders=[tmp_path / "link"])


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "o.json")
    with pytest.raises(KdcError, match="asked for twice"):
        check_outputs([tmp_path / "o.json", tmp_path / "link.json"])


def test_a_plot_is_drawn_as_png_or_svg() -> None:
    with pytest.raises(KdcError, match=r"expected a name ending in \.png or \.svg"):
        check_outputs(plots=["a.pgn"])


def test_a_folder_that_takes_no_files_is_refused() -> None:
    with pytest.raises(KdcError, match="cannot write"):
        check_outputs(["/proc/o.json"])
    with pytest.raises(KdcError, match="cannot write"):
        check_outputs(folders=["/proc/o"])
