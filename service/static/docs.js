// The "Try it" forms of the reference page. Fields and the drawing edit the JSON request; the form sends that request.

import { showAnswer } from "./model/answers.js";
import { ask, compact, make, showFaults } from "./page.js";

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

export function fullResponse(body) {
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
    const headers = { "Content-Type": "application/json" };
    const response = await ask(form.dataset.url, { method: "POST", headers, body: text });
    const body = await response.json();
    status.textContent = `${response.status}, ${Math.max(1, Math.round(performance.now() - started))} ms`;
    const shown = response.ok ? body.predictions.slice(0, 20).map((prediction) => showAnswer(prediction)) : [showFaults(body.error)];
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

export function start() {
  document.querySelectorAll("form.try").forEach(prepare);
}
