// Two versions side by side: the page of the comparison is fetched, and its content shown here.

import { showFaults } from "../elements.js";

export function prepareComparison(ask, signal) {
  const form = document.getElementById("compare-form");
  const place = document.getElementById("comparison-place");
  if (!form) return;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const url = new URL(form.action);
    url.search = new URLSearchParams(new FormData(form));
    const response = await ask(url, { headers: { Accept: "text/html" }, signal });
    if (!response.ok) {
      place.replaceChildren(showFaults((await response.json()).error));
      return;
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    place.replaceChildren(page.getElementById("comparison"));
  });
}
