# SPDX-License-Identifier: Apache-2.0
import errno
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from styleavatar_core.avatar.bundle_path import beside_bundle, find_bundle
from styleavatar_core.cli.main import build_app, main
from styleavatar_core.errors import NotFoundError
from styleavatar_core.tracking.capture import FrameObserver
from tests.fakes.nano_bundle import write_nano_bundle


def test_help_lists_the_commands_of_the_core():
    result = CliRunner().invoke(build_app(), ["train", "--help"])
    assert result.exit_code == 0
    for word in ("--consent", "--preset", "--minutes"):
        assert word in result.output


def test_errors_are_one_sentence_and_code_2(tmp_path):
    video = tmp_path / "notes.mp4"
    video.write_text("no video")
    command = [sys.executable, "-m", "styleavatar_core.cli.main", "train", str(video)]
    result = subprocess.run(
        [*command, str(tmp_path / "out"), "--consent", ""], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "consent of the person shown" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_package_that_is_not_installed_is_named_in_a_sentence(tmp_path):
    code = (
        "import sys; sys.modules['cv2'] = None; from styleavatar_core.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "import-official", str(tmp_path), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    told = "the package 'cv2' is not here; run `make install`, or install styleavatar with all its"
    assert result.stderr == f"styleavatar: {told} extras.\n"


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [
        ("track {clip} {out}.npz", False),
        ("capture-report {clip} {out}", False),
        ("train {clip} {out} --consent 'It is me and I agree.'", True),
        ("train {clip} {out} --consent 'It is me and I agree.' --no-resume", False),
    ],
)
def test_who_stops_a_command_is_told_that_it_goes_on_only_where_it_does(
    sample_clip, tmp_path, monkeypatch, capsys, command, goes_on
):
    monkeypatch.setattr(FrameObserver, "see", lambda *_: signal.raise_signal(signal.SIGINT))
    words = shlex.split(command.format(clip=sample_clip.path, out=tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", ["styleavatar", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    told = "stopped; the same command goes on from here" if goes_on else "stopped"
    assert capsys.readouterr().err.endswith(f"styleavatar: {told}.\n")


def test_what_the_system_refuses_is_told_without_its_numbers(tmp_path, monkeypatch, capsys):
    words = ["train", str(tmp_path), str(tmp_path / "out"), "--consent", "It is me and I agree."]
    monkeypatch.setattr(sys, "argv", ["styleavatar", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"styleavatar: {tmp_path}: Is a directory.\n")

    def have_no_room(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.modules["styleavatar_core.cli.export"], "find_bundle", have_no_room)
    monkeypatch.setattr(sys, "argv", ["styleavatar", "export", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "styleavatar: No space left on device.\n"


def test_pretraining_needs_the_consent_of_all_persons(tmp_path):
    command = ["pretrain", "a.mp4", "b.mp4", str(tmp_path / "out")]
    result = CliRunner().invoke(build_app(), command)
    assert getattr(result.exception, "reason", "") == "CONSENT_MISSING"
    assert not (tmp_path / "out").exists()


def test_distilling_needs_a_finished_avatar_and_knows_its_presets(tmp_path):
    missing = CliRunner().invoke(build_app(), ["distill", str(tmp_path), str(tmp_path / "out")])
    assert isinstance(missing.exception, NotFoundError)
    bundle = write_nano_bundle(tmp_path / "avatar")
    command = ["distill", str(bundle), str(tmp_path / "out"), "--preset"]
    unknown = CliRunner().invoke(build_app(), [*command, "huge"])
    assert "there is no preset 'huge'" in str(unknown.exception)
    too_large = CliRunner().invoke(build_app(), [*command, "lite"])
    assert "draws 128 pixels, fewer than the 256 of 'lite'" in str(too_large.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "train {clip} {out} --consent 'It is me and I agree.'",
        "pretrain {clip} {clip} {out} --consent 'We all agree.'",
        "distill {avatar} {out}",
        "sample-clip {out}/clip.mp4",
    ],
)
def test_a_seed_out_of_range_is_refused_before_anything_is_made(tmp_path, command, seed):
    avatar, out, clip = (tmp_path / name for name in ("avatar", "out", "clip.mp4"))
    write_nano_bundle(avatar)
    words = shlex.split(command.format(clip=clip, avatar=avatar, out=out))
    result = CliRunner().invoke(build_app(), [*words, "--seed", str(seed)])
    assert result.exit_code == 2
    assert "--seed" in result.output
    assert not out.exists()


def test_bundle_is_found_directly_or_in_the_training_folder(tmp_path):
    (tmp_path / "avatar").mkdir()
    (tmp_path / "avatar" / "avatar.json").touch()
    assert find_bundle(tmp_path) == tmp_path / "avatar" == find_bundle(tmp_path / "avatar")
    with pytest.raises(NotFoundError, match="styleavatar train"):
        find_bundle(tmp_path / "none")


@pytest.mark.parametrize("name", ["ada.v2", "ada.v2.zip"])
def test_what_is_made_of_a_bundle_goes_beside_it(tmp_path, monkeypatch, name):
    bundle = write_nano_bundle(tmp_path / name)
    if bundle.is_dir():
        monkeypatch.chdir(bundle)
        bundle = Path()
    held = sorted(bundle.glob("*"))
    result = CliRunner().invoke(build_app(), ["export", str(bundle)], catch_exceptions=False)
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {name, "ada.v2.onnx"}
    assert "at most 0 of 255 levels from torch's picture" in result.output
    assert sorted(bundle.glob("*")) == held
    assert beside_bundle(bundle, ".control.json") == tmp_path / "ada.v2.control.json"


def test_helps_have_no_brackets_which_would_be_taken_for_colours():
    group = typer.main.get_command(build_app())
    context = typer.Context(group)
    helps = {
        f"{name} {parameter.name}": getattr(parameter, "help", None) or ""
        for name in group.list_commands(context)
        for parameter in group.get_command(context, name).params
    }
    assert len(helps) > 50
    assert {name: text for name, text in helps.items() if "[" in text} == {}
