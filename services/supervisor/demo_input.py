# SPDX-License-Identifier: Apache-2.0
"""The video that the demo makes an avatar of, and what is said about it: the user's or a sample."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from styleavatar_core.data.native_stderr import native_stderr_to
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import Progress

SAMPLE_SECONDS = 24.0
SAMPLE_SIZE_PX = 384


@dataclass(frozen=True, slots=True)
class DemoInput:
    """The video and what is said about it.

    Attributes:
        video: The file.
        statement: Consent in words.
        subject: Who is shown.
        given_by: Who consents, or states that there is consent.
        source: Where the video comes from, one sentence without full stop.
    """

    video: Path
    statement: str
    subject: str
    given_by: str
    source: str


def make_sample(out: Path, seconds: float, on_progress: Callable[[Progress], None]) -> DemoInput:
    """Makes the sample clip, of a photograph that is in the public domain.

    Args:
        out: Folder of the clip and of the log of its making.
        seconds: Length of the clip.
        on_progress: Told how far it has come.
    """
    with _stderr_in(out / "logs" / "sample-clip.log"):
        # Loads MediaPipe and scikit-image: not for the sake of `--help`.
        from styleavatar_core.sample import clip as sample

    on_progress(Progress("animating", 0.0, "fitting the face model to the photograph"))
    with _stderr_in(out / "logs" / "sample-clip.log"):
        clip = sample.make_sample_clip(
            out / "sample.mp4", seconds=seconds, size_px=SAMPLE_SIZE_PX, on_progress=on_progress
        )
    return DemoInput(
        clip.path,
        sample.SAMPLE_CONSENT,
        sample.SAMPLE_SUBJECT,
        "NASA (public domain)",
        sample.SAMPLE_ORIGIN,
    )


@contextlib.contextmanager
def _stderr_in(log: Path) -> Iterator[None]:
    """Sends what native code writes to the error stream to a file: MediaPipe cannot be silenced."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file, native_stderr_to(file):
        yield


def users_video(video: Path, consent: str | None) -> DemoInput:
    """Returns a video of the user's, with the consent that they state.

    Raises:
        InvalidInputError: They state none.
    """
    if consent is None:
        raise InvalidInputError(
            'an avatar needs the consent of the person in the video; say --consent "I am the person'
            ' shown and agree to an avatar of me.", or who else agreed to what',
            reason="CONSENT_MISSING",
        )
    person = getpass.getuser()
    return DemoInput(
        video, consent, "the person in the video", person, f"{video.name}, given by {person}"
    )
