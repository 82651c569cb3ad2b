# SPDX-License-Identifier: Apache-2.0
import pytest

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.provenance.consent import ConsentRecord, make_consent


@pytest.mark.parametrize("statement", [None, "", "   ", "yes", "123456789012", "......"])
def test_an_empty_statement_is_refused(statement):
    with pytest.raises(InvalidInputError, match="consent of the person") as caught:
        make_consent(statement)
    assert caught.value.reason == "CONSENT_MISSING"
    assert str(caught.value).startswith(
        f'"{statement.strip()}"' if (statement or "").strip() else "an"
    )


def test_record_survives_json():
    record = make_consent(" I agree to an avatar of me. ", subject="Ada", source_description="me")
    assert record.statement == "I agree to an avatar of me."
    assert (record.subject, record.given_by) == ("Ada", "Ada")
    assert record.given_time.tzinfo is not None
    assert ConsentRecord.model_validate_json(record.model_dump_json()) == record


def test_a_field_that_is_too_long_is_named():
    with pytest.raises(InvalidInputError, match="subject"):
        make_consent("I agree to this avatar", subject="x" * 300)
