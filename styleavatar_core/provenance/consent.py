# SPDX-License-Identifier: Apache-2.0
"""The record of consent that every avatar carries (paper, Sec. 5).

No avatar is made without one: the person shown, or whoever may speak for them, states in their own
words that they agree. The record travels unchanged from the upload into the bundle.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from styleavatar_core.errors import InvalidInputError

MIN_STATEMENT_LETTERS = 10


class ConsentRecord(BaseModel):
    """Who agreed to what, and when.

    Attributes:
        statement: The agreement, in words.
        subject: The person that the video shows.
        given_by: Who made the statement: the subject, or who may speak for them.
        given_time: When, with time zone.
        source_description: Where the video comes from and under which terms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: str = Field(max_length=4000)
    subject: str = Field(min_length=1, max_length=200)
    given_by: str = Field(min_length=1, max_length=200)
    given_time: datetime
    source_description: str = Field(default="", max_length=2000)


def make_consent(
    statement: str | None,
    *,
    subject: str | None = None,
    given_by: str | None = None,
    source_description: str = "",
    given_time: datetime | None = None,
) -> ConsentRecord:
    """Makes a record, or refuses when there is no statement.

    Args:
        statement: The agreement, in words.
        subject: The person shown; by default "the person in the video".
        given_by: By default the subject.
        source_description: Where the video comes from.
        given_time: By default now.

    Raises:
        InvalidInputError: The statement is missing or says nothing, or a field is too long.
    """
    words = (statement or "").strip()
    if sum(letter.isalpha() for letter in words) < MIN_STATEMENT_LETTERS:
        lacking = f'"{words}" says too little: ' if words else ""
        raise InvalidInputError(
            f"{lacking}an avatar is only made with the consent of the person shown: state it in a "
            'sentence, for example "I am the person in this video and agree to an avatar of me"',
            reason="CONSENT_MISSING",
        )
    person = (subject or "").strip() or "the person in the video"
    try:
        return ConsentRecord(
            statement=words,
            subject=person,
            given_by=(given_by or "").strip() or person,
            given_time=given_time or datetime.now(UTC),
            source_description=source_description.strip(),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(
            f"consent field '{first['loc'][0]}': {first['msg']}", reason="CONSENT_INVALID"
        ) from error
