"""The conformance table in the documents says what the tests of other projects' clients prove, no more and no less."""

from tests.clients import conformance


def test_the_conformance_table_is_that_of_the_tests() -> None:
    assert conformance.DOCUMENT.read_text(encoding="utf-8") == conformance.table()
