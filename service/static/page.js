// The frame of all pages. It keeps the API keys, starts the script of the page, and follows links with a key.
//
// A key is in the memory of this module only, so leaving the page would forget it. Where one is given, links to pages of
// the service are followed here: the page is fetched with the key, and takes the place of this one.

import { make, showFaults } from "./elements.js";

export * from "./elements.js";

const keys = new Map(); // the API key for each scope
// In place of the service's answer, which tells programs how to send a key.
const refused = (status, scope) => ({
  code: "API key",
  message: {
    401: "This key is unknown or no longer valid. Check it.",
    403: `This key lacks the scope ${scope}. Give one that has it.`,
  }[status],
  faults: [],
});
let page = new AbortController(); // aborted when the page is left
let shownPath = location.pathname;

const root = () => new URL(document.body.dataset.root, location.href);

export const hasKey = (scope = "predict") => keys.has(scope);

export function setKey(key, scope = "predict") {
  keys.set(scope, key);
}

// Fetch a path below the service's root with the key of a scope, or else with any key. Return the response.
export function ask(path, { scope = "predict", headers = {}, ...options } = {}) {
  const key = keys.get(scope) ?? [...keys.values()].at(-1);
  const authorization = key ? { Authorization: `Bearer ${key}` } : {};
  return fetch(new URL(path, root()), { ...options, headers: { ...headers, ...authorization } });
}

const askPage = (url, scope) => ask(url, { scope, headers: { Accept: "text/html" }, signal: page.signal });

// Show a page in place of this one, at a URL at which it may not be yet.
function show(html, url, { scope, push }) {
  page.abort();
  page = new AbortController();
  const next = new DOMParser().parseFromString(html, "text/html");
  if (push) history.pushState({ scope }, "", url);
  shownPath = url.pathname;
  document.title = next.title;
  const known = [...document.querySelectorAll("link[rel=stylesheet]")].map((link) => link.href);
  for (const link of next.querySelectorAll("link[rel=stylesheet]")) {
    const href = new URL(link.getAttribute("href"), url).href;
    if (known.includes(href)) continue;
    const added = make("link");
    Object.assign(added, { rel: "stylesheet", href });
    document.head.append(added);
  }
  Object.assign(document.body.dataset, next.body.dataset);
  document.body.replaceChildren(...next.body.childNodes);
  start();
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
  else if (push) scrollTo(0, 0);
}

async function save(response, name) {
  const link = make("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function follow(url, { scope = "predict", push = true } = {}) {
  try {
    const response = await askPage(url, scope);
    if (response.headers.get("Content-Type")?.startsWith("text/html")) show(await response.text(), url, { scope, push });
    else await save(response, url.pathname.split("/").at(-1));
  } catch (problem) {
    if (problem.name === "AbortError") return;
    document.getElementById("main").prepend(showFaults({ code: "no response", message: String(problem), faults: [] }));
  }
}

function clicked(event) {
  const link = event.target.closest("a[href]");
  if (!keys.size || !link || event.defaultPrevented) return;
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || link.target) return;
  const url = new URL(link.href);
  const samePage = url.pathname === location.pathname && url.search === location.search;
  if (!url.href.startsWith(root().href) || (samePage && url.hash)) return;
  event.preventDefault();
  follow(url, { scope: link.dataset.scope });
}

// Fetch this page with the key that the form has, and show it in place of the form.
function prepareKey(form) {
  const [button, result, field] = ["button", ".result", "input"].map((name) => form.querySelector(name));
  const { scope } = form.dataset;
  form.querySelector(".plain").hidden = isSecureContext;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const before = keys.get(scope);
    keys.set(scope, field.value.trim());
    try {
      const response = await askPage(location.href, scope);
      if (response.ok) {
        history.replaceState({ scope }, "");
        show(await response.text(), new URL(location.href), { scope, push: false });
      } else {
        if (before === undefined) keys.delete(scope);
        else keys.set(scope, before);
        const known = response.status === 401 || response.status === 403;
        result.replaceChildren(showFaults(known ? refused(response.status, scope) : (await response.json()).error));
      }
    } catch (problem) {
      result.replaceChildren(showFaults({ code: "no response", message: String(problem), faults: [] }));
    } finally {
      button.disabled = false;
    }
  });
  form.hidden = false;
  field.focus();
}

function prepareCopy(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

async function start() {
  const { signal } = page;
  document.querySelectorAll("form.key").forEach(prepareKey);
  if (navigator.clipboard) document.querySelectorAll(".copy").forEach(prepareCopy);
  const { body } = document;
  delete body.dataset.state;
  const name = body.dataset.script;
  let script;
  try {
    script = name && await import(`./${name}.js`);
  } catch (problem) {
    body.dataset.state = "failed";
    const message = `A script of this page did not load, as the service is overloaded or gone. Reload the page. (${problem.message})`;
    document.getElementById("main").prepend(showFaults({ code: "no response", message, faults: [] }));
    return;
  }
  if (script && !signal.aborted) script.start({ signal });
  body.dataset.state = "started";
}

document.addEventListener("click", clicked);
addEventListener("popstate", (event) => {
  if (!keys.size || location.pathname === shownPath) return; // the latter: another part of the same page
  follow(new URL(location.href), { scope: event.state?.scope, push: false });
});
start();
