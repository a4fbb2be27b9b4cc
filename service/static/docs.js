// The "Try it" forms of the reference page. Fields and the drawing edit the JSON request; the form sends that request.
// Where the service requires an API key, the page is first a form for it: see `openWithKey`.
"use strict";

let key = ""; // the API key; it is kept here only, and so until the page is left
// In place of the service's answer, which tells programs how to send a key.
const REFUSED = {
  401: { code: "API key", message: "This key is unknown or no longer valid. Check it.", faults: [] },
  403: { code: "API key", message: "This key lacks the scope predict. Give one that has it.", faults: [] },
};
const withKey = (headers) => (key ? { ...headers, Authorization: `Bearer ${key}` } : headers);

// Show a character that is not visible as a JSON escape, as the service does: a direction mark would reorder the text
// around it. JSON text keeps its meaning, as these characters occur in its strings only.
const printable = (text) => text.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, (letter) => {
  const escaped = JSON.stringify(letter).slice(1, -1);
  if (escaped !== letter) return escaped;
  return letter.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
});

const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = printable(text);
  if (className) element.className = className;
  return element;
};

// Send a number as a number and any other text as a string, so that the service reports the error.
function valueOf(field) {
  if (field.tagName === "SELECT") {
    return field.selectedOptions[0].hasAttribute("data-missing") ? null : field.value;
  }
  const text = field.value.trim();
  if (text === "") return null;
  if (field.dataset.widget !== "number") return field.value;
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

function compact(value) {
  // Format JSON with each innermost list on one line, so that the rows of an image are lines.
  return printable(JSON.stringify(value, null, 1)).replace(/\[[^[\]{}]*\]/g, (list) => list.replace(/\s+/g, " "));
}

function bars(probabilities) {
  const box = make("div", undefined, "bars");
  const ranked = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 10);
  for (const [label, share] of ranked) {
    const bar = make("span", undefined, "bar");
    const fill = make("i");
    fill.style.width = `${100 * share}%`;
    bar.append(fill);
    const percent = share > 0.9995 ? "> 99.9 %" : share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
    box.append(make("b", label), bar, make("span", percent, "share"));
  }
  return box;
}

// A number with six digits, or all before the decimal point, and separators: 425,453. The full response has the others.
function short(value) {
  const size = Math.abs(value);
  if (typeof value !== "number" || size === 0) return String(value);
  if (size < 1e-4 || size >= 1e15) return value.toPrecision(6);
  return value.toLocaleString("en", { maximumFractionDigits: Math.max(0, 5 - Math.floor(Math.log10(size))) });
}

function showPrediction(prediction) {
  const box = make("div");
  if (prediction !== null && typeof prediction === "object" && "probabilities" in prediction) {
    const answer = prediction.labels ? prediction.labels.join(", ") || "none of the labels" : String(prediction.label);
    box.append(make("p", answer, "answer"), bars(prediction.probabilities));
  } else if (typeof prediction === "object") {
    for (const [name, value] of Object.entries(prediction)) {
      const line = make("p", short(value), "answer");
      line.append(" ", make("small", name));
      box.append(line);
    }
  } else {
    box.append(make("p", short(prediction), "answer"));
  }
  return box;
}

function showFaults(error) {
  const list = make("ul", undefined, "faults");
  const faults = error.faults.length ? error.faults : [{ location: error.code, problem: error.message, fix: "" }];
  for (const fault of faults) {
    const line = make("li");
    line.append(make("b", fault.location), printable(` ${fault.problem}`));
    if (fault.fix) line.append(make("em", fault.fix));
    list.append(line);
  }
  return list;
}

function fullResponse(body) {
  const details = make("details");
  const code = make("div", undefined, "code");
  const pre = make("pre");
  pre.tabIndex = 0;
  pre.append(make("code", JSON.stringify(body, null, 2)));
  code.append(pre);
  details.append(make("summary", "Full response"), code);
  return details;
}

async function send(form, text) {
  const [button, status, result] = [".go button", ".status", ".result"].map((name) => form.querySelector(name));
  button.disabled = true;
  const started = performance.now();
  try {
    const headers = withKey({ "Content-Type": "application/json" });
    const response = await fetch(form.dataset.url, { method: "POST", headers, body: text });
    const body = await response.json();
    status.textContent = `${response.status}, ${Math.max(1, Math.round(performance.now() - started))} ms`;
    const shown = response.ok ? body.predictions.slice(0, 20).map(showPrediction) : [showFaults(body.error)];
    result.replaceChildren(...shown, fullResponse(body));
  } catch (problem) {
    status.textContent = "";
    result.replaceChildren(showFaults({ code: "no response", message: String(problem), faults: [] }));
  } finally {
    button.disabled = false;
  }
}

// Draw an array on a canvas of the same resolution: one pixel for each number.
function drawing(canvas, read, write) {
  const [rows, columns, low, high] = ["rows", "columns", "low", "high"].map((name) => Number(canvas.dataset[name]));
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  let image = [];

  const paint = () => {
    image.forEach((row, i) => row.forEach((value, j) => {
      const light = Math.round(255 * (value - low) / (high - low));
      context.fillStyle = `rgb(${light} ${light} ${light})`;
      context.fillRect(j, i, 1, 1);
    }));
  };
  const load = () => {
    const given = read();
    const flat = Array.isArray(given) ? given.flat(9).map(Number) : [];
    if (flat.length !== rows * columns || !flat.every(Number.isFinite)) return;
    image = Array.from({ length: rows }, (_, i) => flat.slice(i * columns, (i + 1) * columns));
    paint();
  };
  const touch = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * columns - 0.5;
    const y = (event.clientY - box.top) / box.height * rows - 0.5;
    const reach = Math.max(0.75, columns / 14);
    image = image.map((row, i) => row.map((value, j) => {
      const ink = Math.max(0, 1 - Math.hypot(i - y, j - x) / (reach * 1.5));
      return Math.min(high, Math.round(Math.max(value, low + (high - low) * Math.min(1, 1.5 * ink))));
    }));
    paint();
    write(image);
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); touch(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) touch(event); });
  const clear = () => {
    image = Array.from({ length: rows }, () => Array(columns).fill(low));
    paint();
    write(image);
  };
  return { load, clear };
}

function prepare(form) {
  const text = form.querySelector("textarea");
  const fields = [...form.querySelectorAll("[data-column]")];
  const canvas = form.querySelector("canvas");
  const write = (instance) => { text.value = compact({ instances: [instance] }); };
  const read = () => { try { return JSON.parse(text.value).instances[0]; } catch { return undefined; } };
  const gather = () => write(Object.fromEntries(fields.map((field) => [field.dataset.column, valueOf(field)])));

  text.value = text.defaultValue = compact(JSON.parse(text.value));
  fields.forEach((field) => field.addEventListener("input", gather));
  if (canvas) {
    const { load, clear } = drawing(canvas, read, write);
    load();
    text.addEventListener("input", load);
    form.querySelector(".clear").addEventListener("click", clear);
    form.addEventListener("reset", () => setTimeout(load));
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, text.value);
  });
  form.hidden = false;
}

// Fetch this page with the key and show it in place of the form.
async function openWithKey(form, given) {
  const [button, result] = ["button", ".result"].map((name) => form.querySelector(name));
  button.disabled = true;
  try {
    const response = await fetch(location.pathname, { headers: { Authorization: `Bearer ${given}` } });
    if (response.ok) {
      key = given;
      show(await response.text());
    } else {
      result.replaceChildren(showFaults(REFUSED[response.status] ?? (await response.json()).error));
    }
  } catch (problem) {
    result.replaceChildren(showFaults({ code: "no response", message: String(problem), faults: [] }));
  } finally {
    button.disabled = false;
  }
}

function show(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  document.title = page.title;
  document.body.replaceChildren(...page.body.childNodes);
  start();
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

// A link is followed without the key. So fetch the OpenAPI document, and save it as a file.
async function saveDocument(event) {
  event.preventDefault();
  const response = await fetch(event.target.href, { headers: withKey({}) });
  const link = make("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = "openapi.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

function prepareKey(form) {
  form.querySelector(".plain").hidden = isSecureContext;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    openWithKey(form, form.querySelector("input").value.trim());
  });
  form.hidden = false;
  form.querySelector("input").focus();
}

function start() {
  document.querySelectorAll("form.key").forEach(prepareKey);
  document.querySelectorAll("form.try:not(.key)").forEach(prepare);
  if (key) document.querySelectorAll("a.document").forEach((link) => link.addEventListener("click", saveDocument));
  if (navigator.clipboard) {
    document.querySelectorAll(".copy").forEach((button) => {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
    });
  }
}

start();
