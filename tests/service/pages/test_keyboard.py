"""The keyboard alone reaches everything on every page, in a visible place."""

from __future__ import annotations

import pytest

from tests.chromium import in_browser
from tests.service.pages.conftest import DESK, OpenPage
from tests.service.pages.test_first_paint import PAGES
from tests.service.server.server_process import Server

pytestmark = [*in_browser]

# Number what the keyboard should reach; of the radio buttons of a group the browser stops at one.
NUMBER = """() => {
    const groups = new Map();
    const found = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
        .filter((one) => one.checkVisibility() && !one.disabled);
    for (const one of found) {
        const group = one.type === "radio" ? `radio ${one.name}` : groups.size;
        if (!groups.has(group)) groups.set(group, groups.size);
        one.dataset.number = groups.get(group);
    }
    return groups.size;
}"""
# The number of the element that has the focus, and whether the focus can be seen.
FOCUSED = """() => {
    const one = document.activeElement;
    const { outlineStyle } = getComputedStyle(one);
    const around = one.closest("label, .button")?.matches(":focus-within");
    return [one.dataset.number ?? null, outlineStyle !== "none" || Boolean(around) || one.tagName === "BODY"];
}"""


@pytest.mark.parametrize("path", PAGES)
def test_the_keyboard_reaches_everything_on(open_page: OpenPage, server: Server, path: str) -> None:
    page = open_page(server, path, DESK)
    page.locator(PAGES[path]).first.wait_for()
    count = page.evaluate(NUMBER)
    assert count >= 6
    reached, hidden = set(), []
    for _ in range(count + 10):
        page.keyboard.press("Tab")
        number, is_seen = page.evaluate(FOCUSED)
        reached.add(number)
        if not is_seen:
            hidden.append(number)
    assert {str(number) for number in range(count)} <= reached
    assert hidden == []
