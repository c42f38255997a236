"""Gifs, animations, images of floats, and folders and names as they come."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdc_core.data import gif
from kdc_core.data.images import ImageError, Images
from kdc_core.data.sources import SourceError, list_sources

from .videos import make_video, picture, read

# Gifs, animations and floats


def make_gif(path: Path, frames: int) -> bytes:
    """A gif of random frames, each with a table of colors of its own; its bytes."""
    pictures = [Image.fromarray(picture(40 * n)).quantize(64) for n in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path.read_bytes()


def test_a_cut_gif_says_that_frames_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    whole = make_gif(path, 6)
    frames, errors = read(path)
    assert len(frames) == 6 and not errors
    for length in (len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:length])
        frames, errors = read(path)
        assert frames and len(errors) == 1 and "frames could be read" in errors[0], length
    path.write_bytes(whole[:-1])  # some programs leave the mark of the end out
    frames, errors = read(path)
    assert len(frames) == 6 and not errors


@given(data=st.binary(max_size=400))
def test_what_only_begins_as_a_gif_is_cut_or_unknown(data: bytes) -> None:
    assert gif.is_cut(io.BytesIO(b"GIF89a" + data)) in (True, False)


@pytest.mark.skipif(not hasattr(cv2, "imencodeanimation"), reason="OpenCV before 4.11")
def test_frames_of_an_animation_that_says_no_times_follow_each_other(tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames = [picture(10 * n) for n in range(4)]
    animation.durations = [0] * 4
    path = tmp_path / "a.webp"
    assert cv2.imwriteanimation(str(path), animation)
    frames, errors = read(path)
    assert not errors
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("suffix", [".pfm", ".tiff", ".hdr"])
def test_white_is_one_in_images_of_floats(suffix: str, tmp_path: Path) -> None:
    values = picture(0)[..., ::-1].astype(np.float32) / 255
    values[:4] = 7.0  # brighter than white
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), values)
    [frame], errors = read(path)
    assert not errors and frame.image is not None and frame.image.dtype == np.uint8
    assert (frame.image[:4] == 255).all()
    assert np.abs(frame.image[4:].astype(int) - picture(0)[4:]).mean() < 2


# Folders and names


def test_of_a_folder_what_opencv_reads_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b.ppm", "a.JPG", "c.avif", "d.mp4", "e.heic", "f.heic", "g", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "below.jpg").mkdir()
    found = [Path(source).name for source in list_sources([str(tmp_path)])]
    assert [n for n in found if n != "c.avif"] == ["a.JPG", "b.ppm", "d.mp4"]
    assert ("c.avif" in found) == cv2.haveImageWriter("x.avif")
    left = "" if cv2.haveImageWriter("x.avif") else "1 .avif, "
    assert f"left out by ending: 2 .heic, 1 folder, {left}1 without" in caplog.text
    with pytest.raises(SourceError, match=r"got 1 \.heic"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.heic").write_bytes(b"")
        list_sources([str(tmp_path / "other")])
    hidden = str(tmp_path / ".hidden.jpg")
    assert list_sources([hidden]) == [hidden], "who names a hidden file wants it"


def test_pipes_and_devices_are_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpg", "b.mp4"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "c.png").symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="got 3 pipe or device"):
        list_sources([str(tmp_path)])
    (tmp_path / "d.jpg").symlink_to(tmp_path / "nowhere")
    assert list_sources([str(tmp_path)]) == [str(tmp_path / "d.jpg")], "that is told as an error"
    assert "left out by ending: 3 pipe or device" in caplog.text
    for name in ("a.jpg", "c.png"):
        with pytest.raises(ImageError, match="a regular file"):
            Images(tmp_path).read_bytes(name)


def test_there_is_no_camera_of_a_number_past_all_counting() -> None:
    for digits in (10, 5000):
        with pytest.raises(SourceError, match="there is no camera 99999"):
            list_sources(["9" * digits])


NAMES = [b"\xff\xfe.png", b"%03d.png", b"a\nb.png", b"x" * 251 + b".png", b"'\"\\.png", b"-.png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [b".png", b".mp4"])
def test_files_of_any_name_are_read(name: bytes, suffix: bytes, tmp_path: Path) -> None:
    check_name(name.removesuffix(b".png"), suffix, tmp_path)


@settings(max_examples=20, deadline=None)
@given(name=st.binary(min_size=1, max_size=251))
def test_files_of_random_bytes_as_names(
    name: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = name.replace(b"/", b"_").replace(b"\0", b"_")
    check_name(b"n" + name[:249], b".mp4", tmp_path_factory.mktemp("names"))


def check_name(name: bytes, suffix: bytes, folder: Path) -> None:
    """It is found in its folder, read, and told by JSON."""
    plain = make_video(folder / "plain.mp4", 2)
    if suffix == b".png":
        plain.write_bytes(cv2.imencode(".png", picture(0))[1].tobytes())
    below = os.fsencode(folder) + b"/below"
    os.mkdir(below)
    os.rename(plain, below + b"/" + name + suffix)
    [source] = list_sources([os.fsdecode(below)])
    frames, errors = read(source)
    assert errors == [] and len(frames) == (1 if suffix == b".png" else 2)
    told = json.loads(json.dumps(frames[0].source))
    assert os.fsencode(told) == below + b"/" + name + suffix
