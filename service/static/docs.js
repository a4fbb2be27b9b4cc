// The "Try it" forms of the reference page. Fields and the drawing edit the JSON request; the form sends that request.

import { showAnswer } from "./model/answers.js";
import { makeDrawing } from "./model/drawing.js";
import { showRange } from "./model/ranges.js";
import { showExplanation } from "./model/explanation.js";
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
    const ranges = (body.intervals ?? body.sets ?? []).slice(0, 20).map((_, i) => (
      showRange(body.predictions[i], { interval: body.intervals?.[i], set: body.sets?.[i] })
    ));
    const explained = (body.explanations ?? []).slice(0, 20).map(showExplanation);
    result.replaceChildren(...shown, ...ranges, ...explained, fullResponse(body));
  } catch (problem) {
    status.textContent = "";
    result.replaceChildren(showFaults({ code: "no response", message: String(problem), faults: [] }));
  } finally {
    button.disabled = false;
  }
}

function prepare(form) {
  const text = form.querySelector("textarea");
  const fields = [...form.querySelectorAll("[data-column]")];
  const place = form.querySelector(".draw");
  const write = (instance) => { text.value = compact({ instances: [instance] }); };
  const read = () => { try { return JSON.parse(text.value).instances[0]; } catch { return undefined; } };
  const gather = () => write(Object.fromEntries(fields.map((field) => [field.dataset.column, valueOf(field)])));

  text.value = text.defaultValue = compact(JSON.parse(text.value));
  fields.forEach((field) => field.addEventListener("input", gather));
  if (place) {
    const drawing = makeDrawing(JSON.parse(place.dataset.column), read() ?? null, write);
    const load = () => drawing.set(read());
    place.append(drawing.element);
    text.addEventListener("input", load);
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
