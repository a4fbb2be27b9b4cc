"""What holds for every page: its policy, `SERVE_PAGES=off`, and a key before anything of the models."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store
from tests.service.conftest import MakeClient
from tests.service.security.keys import bearer

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def pages(client: FlaskClient) -> Iterator[str]:
    """Yield the path of every view that is marked as a page, for the model price."""
    views = client.application.view_functions
    for rule in client.application.url_map.iter_rules():
        if hasattr(views[rule.endpoint], "page_scope"):
            path = re.sub(r"<[^>]*name>", "price", rule.rule)
            yield re.sub(r"<[^>]*>", "1", path)


def test_no_page_may_load_or_run_anything_but_the_services_own_files(client: FlaskClient) -> None:
    shown = 0
    for path in pages(client):
        page = client.get(path, headers=BROWSER)
        if page.status_code == 404:  # this model has no report
            continue
        shown += 1
        allowed = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
        assert allowed.pop("img-src") == "'self' data:"
        own = {name for name, sources in allowed.items() if sources == "'self'"}
        assert own == {"script-src", "style-src", "connect-src"}
        assert {name for name, sources in allowed.items() if sources == "'none'"} == allowed.keys() - own
        assert {"default-src", "base-uri", "form-action", "frame-ancestors"} < allowed.keys()
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "no-referrer"
    assert shown >= 7


def test_turned_off_there_is_no_page_and_no_file_of_one(store: Store, make_client: MakeClient) -> None:
    client = make_client(store, pages=False)
    found = list(pages(client))
    assert len(found) >= 7
    for path in (
        *found,
        "/static/page.js",
        "/static/runtime.js",
        "/static/charts.css",
        "/models/price/versions/1/model.js",
    ):
        response = client.get(path, headers=BROWSER)
        assert response.mimetype == "application/json", path
        if path not in ("/", "/models/price", "/models/price/versions/1", "/traffic"):  # JSON for programs
            assert response.status_code == 404, path


def test_without_a_key_every_page_is_the_form_that_asks_for_one(guarded: FlaskClient) -> None:
    """It is the same for each model and version, also for those that do not exist."""
    for path in pages(guarded):
        page = guarded.get(path, headers=BROWSER)
        assert (page.status_code, page.mimetype) == (401, "text/html"), path
        assert "price" not in page.text.replace(path, "")
        other = guarded.get(path.replace("price", "prince"), headers=BROWSER)
        assert (other.status_code, other.text) == (401, page.text)
        wrong = guarded.get(path, headers=BROWSER | {"Authorization": "Bearer fp_nobody"})
        assert (wrong.status_code, wrong.text) == (401, page.text)


@pytest.mark.parametrize("scope", ["predict", "metrics", "admin"])
def test_a_page_is_shown_to_keys_of_its_scope_alone(guarded: FlaskClient, scope: str) -> None:
    views = guarded.application.view_functions
    for rule in guarded.application.url_map.iter_rules():
        needed = getattr(views[rule.endpoint], "page_scope", None)
        if needed is not None and not rule.arguments:
            page = guarded.get(rule.rule, headers=BROWSER | bearer(scope))
            assert (page.status_code == 200) is (needed == scope), rule.rule
