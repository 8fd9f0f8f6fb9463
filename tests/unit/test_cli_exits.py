"""Exit codes: the table, and how failures of transfers become one of them."""

from __future__ import annotations

import pytest

from protocols import errors
from protocols.errors import TransferError
from transfer_engine.cli.exits import BY_CODE, MEANING, Exit, epilog, of_failures
from transfer_engine.credentials import errors as credential_errors


def every_code() -> set[str]:
    known = [*vars(errors).values(), *vars(credential_errors).values()]
    kinds = [value for value in known if isinstance(value, type) and issubclass(value, TransferError)]
    return {kind.code for kind in kinds}


def test_every_code_has_a_meaning_and_is_shown():
    assert set(MEANING) == set(Exit)
    assert all(f"{code.value:>5}  {MEANING[code]}" in epilog() for code in Exit)


def test_the_table_names_only_codes_that_exist():
    assert set(BY_CODE) <= every_code()


@pytest.mark.parametrize(
    ("codes", "n_finished", "expected"),
    [
        ([], 0, Exit.OK),
        ([], 3, Exit.OK),
        (["MISSING"], 0, Exit.NOT_FOUND),
        (["MISSING", "PARENT_MISSING"], 0, Exit.NOT_FOUND),
        (["DENIED"], 0, Exit.DENIED),
        (["TOKEN_ENDED", "DENIED"], 0, Exit.DENIED),
        (["UNAVAILABLE", "TIMED_OUT"], 0, Exit.TEMPORARY),
        (["CHECKSUM_MISMATCH"], 0, Exit.MISMATCH),
        (["ALREADY_EXISTS"], 0, Exit.ALL_FAILED),
        (["MISSING", "DENIED"], 0, Exit.ALL_FAILED),
        (["MISSING"], 1, Exit.SOME_FAILED),
        (["never heard of"], 0, Exit.ALL_FAILED),
    ],
)
def test_failures_become_one_code(codes: list[str], n_finished: int, expected: Exit):
    assert of_failures(codes, n_finished) is expected
