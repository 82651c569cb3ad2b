# SPDX-License-Identifier: Apache-2.0
from fractions import Fraction

import av
import numpy as np
import pytest

from styleavatar_core.data.decoded import mirrors, upright
from styleavatar_core.data.video import probe, probe_for_training, read_frames
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.errors import InvalidInputError, NotFoundError


def write_video(path, seconds=6.0, fps=10, width=64, height=48):
    with VideoWriter(path, fps, width, height) as writer:
        for index in range(round(seconds * fps)):
            writer.write(np.full((height, width, 3), (index * 4) % 240, np.uint8))


def test_what_is_written_comes_back_in_order(tmp_path):
    write_video(tmp_path / "clip.mp4")
    info = probe(tmp_path / "clip.mp4")
    frames = list(read_frames(tmp_path / "clip.mp4"))
    assert (info.width, info.height, info.frame_count) == (64, 48, 60)
    assert info.fps == pytest.approx(10)
    assert info.duration_s == pytest.approx(6.0, abs=0.11)
    assert [index for index, _, _ in frames] == list(range(60))
    assert [time for _, time, _ in frames[:3]] == pytest.approx([0.0, 0.1, 0.2], abs=1e-3)
    levels = [float(frame.mean()) for _, _, frame in frames[:50]]
    assert levels == pytest.approx([index * 4 for index in range(50)], abs=2.5)


def test_channels_are_rgb(tmp_path):
    with VideoWriter(tmp_path / "red.mp4", 10, 32, 32) as writer:
        for _ in range(5):
            writer.write(np.full((32, 32, 3), (250, 10, 10), np.uint8))
    _, _, frame = next(iter(read_frames(tmp_path / "red.mp4")))
    assert frame[16, 16, 0] > 200
    assert frame[16, 16, 2] < 60


def test_a_frame_with_notes_that_are_not_known_is_not_mirrored() -> None:
    class Spatial:
        @property
        def side_data(self) -> None:
            raise ValueError("37 is not a valid Type")

    assert not mirrors(Spatial())


def test_rotation_metadata_turns_the_picture():
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[0, 3] = 255  # top right
    turned = upright(
        picture, 90, is_mirrored=False
    )  # a quarter counter-clockwise brings it to the top left
    assert turned.shape == (4, 2, 3)
    assert turned[0, 0, 0] == 255
    assert upright(picture, -90, is_mirrored=False)[3, 1, 0] == 255
    assert upright(picture, 0, is_mirrored=False) is picture


def test_ten_bit_and_odd_size_decode(tmp_path):
    path = tmp_path / "ten.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 33, 21, "yuv420p10le"
        for _ in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((21, 33, 3), 128, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, _, frame = next(iter(read_frames(path)))
    assert frame.shape == (21, 33, 3)
    assert frame.dtype == np.uint8
    assert abs(float(frame.mean()) - 128) < 4


def test_short_video_says_what_is_needed(tmp_path):
    write_video(tmp_path / "short.mp4", seconds=2.0)
    with pytest.raises(InvalidInputError, match=r"2\.0 s long.*at least 5 s") as caught:
        probe(tmp_path / "short.mp4")
    assert caught.value.reason == "VIDEO_TOO_SHORT"


def test_few_frames_are_too_short_for_a_training_alone(tmp_path):
    write_video(tmp_path / "slow.mp4", seconds=59.0, fps=1)
    write_video(tmp_path / "clip.mp4", seconds=60.0, fps=1)
    with pytest.raises(InvalidInputError, match=r"59 frames, 1 per second.*at least 60") as caught:
        probe_for_training(tmp_path / "slow.mp4")
    assert caught.value.reason == "VIDEO_TOO_SHORT"
    assert probe(tmp_path / "slow.mp4").frame_count == 59
    assert probe_for_training(tmp_path / "clip.mp4").frame_count == 60


def test_audio_file_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidInputError, match="only sound"):
        probe(path)


def test_text_and_truncated_files_are_refused(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video " * 500)
    write_video(tmp_path / "whole.mp4")
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    for name in ("notes.mp4", "half.mp4"):
        with pytest.raises(InvalidInputError, match=f"{name} is "):
            probe(tmp_path / name)


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4"])
def test_a_playlist_leads_to_no_other_file(tmp_path, name):
    write_video(tmp_path / "private.ts", seconds=6.0)
    assert probe(tmp_path / "private.ts").frame_count > 0
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:6", "#EXTINF:6,", f"file://{tmp_path}/private.ts"]
    (tmp_path / name).write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    with pytest.raises(InvalidInputError, match=f"{name} is not a video"):
        probe(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(NotFoundError):
        probe(tmp_path / "none.mp4")


def test_odd_output_size_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="odd"):
        VideoWriter(tmp_path / "odd.mp4", 10, 33, 32)
