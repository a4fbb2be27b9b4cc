"""The conformance table in docs/ matches the tests with other projects' clients."""

from tests.clients import conformance


def test_the_conformance_table_matches_the_tests() -> None:
    assert conformance.DOCUMENT.read_text(encoding="utf-8") == conformance.table()
