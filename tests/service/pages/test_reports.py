"""The reports of the store in the frame of the pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.service.conftest import MakeClient, penguins
from tests.service.pages.conftest import check_layout, in_browser


def test_the_index_links_the_report_of_each_version(store: Any, make_client: MakeClient) -> None:
    store.publish("penguins", penguins(1))
    client = make_client(store)
    page = client.get("/reports").get_data(as_text=True)
    for name, number in (("penguins", 1), ("penguins", 2), ("price", 1)):
        path = f"models/{name}/versions/{number}/report"
        assert f'href="./{path}"' in page
        report = client.get(f"/{path}")
        assert report.status_code == 200
        assert f"Report of {name}/{number}" in report.get_data(as_text=True)
    assert client.get("/models/price/versions/7/report").status_code == 404


def test_the_report_in_the_frame_has_no_inline_style_or_script(client: Any) -> None:
    page = client.get("/models/penguins/versions/1/report").get_data(as_text=True)
    assert "<style" not in page
    assert " style=" not in page
    assert page.count("<script") == 1


def test_hostile_text_of_a_report_is_text(store: Any, make_client: MakeClient) -> None:
    store.publish("penguins", replace(penguins(), description="<img src=x onerror=alert(1)>"))
    page = make_client(store).get("/models/penguins/versions/2/report").get_data(as_text=True)
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.parametrize("_", [pytest.param(0, marks=in_browser, id="browser")])
def test_index_and_report_in_a_browser(open_page: Any, server: Any, _: int) -> None:
    page = open_page(server, "/reports")
    check_layout(page)
    page.get_by_role("link", name="version 1").first.click()
    page.wait_for_url("**/report")
    check_layout(page)
