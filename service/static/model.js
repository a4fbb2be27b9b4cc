// The page of a model: a form with live answers, a table of rows, and the versions with their aliases.

import { ask, compact, hasKey, make } from "./page.js";
import { prepareAliases } from "./model/aliases.js";
import { showAnswer, showProblems } from "./model/answers.js";
import { prepareComparison } from "./model/comparison.js";
import { makeDrawing } from "./model/drawing.js";
import { showExplanation } from "./model/explanation.js";
import { makeField } from "./model/fields.js";
import { Live, Predictor } from "./model/predictor.js";
import { makeLevelChoice, showRange } from "./model/ranges.js";
import { LANGUAGES, snippet } from "./model/snippets.js";
import { makeSurface } from "./model/surface.js";
import { prepareTable } from "./model/table.js";

export function start({ signal }) {
  const data = JSON.parse(document.getElementById("form-data").textContent);
  const predictor = new Predictor(data, ask, signal);
  if (data.columns.length) prepareForm(data, predictor, signal);
  prepareTable(data, ask, signal);
  prepareComparison(ask, signal);
  prepareAliases(data, ask, signal);
}

function prepareForm(data, predictor, signal) {
  const form = document.getElementById("try-form");
  const isWhole = data.columns[0].kind === "array";
  let row = data.example ?? (isWhole ? null : Object.fromEntries(data.columns.map((column) => [column.name, column.mean ?? null])));

  const text = document.getElementById("row");
  const code = document.getElementById("snippet");
  const surface = makeSurface(data, predictor, (values) => {
    Object.entries(values).forEach(([name, value]) => fields.get(name).set(value));
    change({ ...row, ...values });
  });
  const explains = data.explains ? make("input") : null;
  const levels = makeLevelChoice(data, () => again());
  const axes = new Map();
  const live = new Live(
    (given) => predictor.predict([given], { ...(explains?.checked && { explain: true }), ...levels?.asked }),
    (found) => show(found, data, form, axes),
    signal,
  );

  let language = LANGUAGES[0];
  const describe = () => {
    code.textContent = snippet(language, data, row, hasKey());
  };
  let isEmpty = row === null; // nothing is drawn
  const again = () => { if (!isEmpty) live.update(row); };
  const change = (next, { isText, isBlank = false } = {}) => {
    row = next;
    isEmpty = isBlank;
    if (!isText) text.value = compact(row);
    describe();
    surface?.mark(row);
    if (isBlank) {
      live.stop();
      show({ status: "Nothing is drawn." }, data, form);
    } else {
      live.update(row);
    }
  };

  const fields = new Map();
  const inputs = form.querySelector(".inputs");
  if (isWhole && ["drawing", "picture"].includes(data.columns[0].widget)) {
    fields.set(data.columns[0].name, makeDrawing(data.columns[0], row, (values, isBlank) => change(values, { isBlank })));
  } else if (!isWhole) {
    for (const column of data.columns) {
      fields.set(column.name, makeField(column, row[column.name] ?? null, (value) => change({ ...row, [column.name]: value })));
    }
  }
  for (const field of fields.values()) inputs.append(field.element);
  if (!fields.size) inputs.append(make("p", "The model takes an array: edit the row as JSON below.", "note"));
  if (!isWhole && data.columnCount > data.columns.length) {
    const others = data.columnCount - data.columns.length;
    inputs.append(make("p", `${others} more columns keep the values of the example. Edit them in the row as JSON below.`, "note"));
  }

  text.addEventListener("input", () => {
    let given;
    try {
      given = JSON.parse(text.value);
    } catch {
      text.setAttribute("aria-invalid", "true");
      return;
    }
    text.removeAttribute("aria-invalid");
    if (given === null || typeof given !== "object") return;
    if (isWhole) fields.get(data.columns[0].name)?.set(given);
    else fields.forEach((field, name) => field.set(given[name] ?? null));
    change(given, { isText: true });
  });
  document.querySelector(".languages").append(
    ...LANGUAGES.map((name) => choice("language", name, name === language, () => { language = name; describe(); })),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  if (explains) {
    Object.assign(explains, { type: "checkbox", checked: !isWhole });
    explains.addEventListener("change", again);
    const label = make("label", undefined, "switch");
    label.append(explains, make("b", "Explain the answer"));
    form.querySelector(".where").append(label);
  }
  if (levels) form.querySelector(".where").append(levels.element);
  form.querySelector(".where").append(...predictor.controls(again));
  if (surface) document.getElementById("surface").append(surface.element);
  form.hidden = document.querySelector(".request").hidden = false;
  if (!fields.size) document.querySelector(".request").open = true;
  if (row !== null) change(row);
  else form.querySelector(".status").textContent = "The answer appears here.";
}

function show(found, data, form, axes) {
  const answer = document.getElementById("answer");
  if (found.answers) {
    const parts = [showAnswer(found.answers[0], data.output)];
    const [interval, set] = [found.intervals?.[0], found.sets?.[0]];
    const level = found.asked?.interval ?? found.asked?.set;
    if (interval || set) parts.push(showRange(found.answers[0], { interval, set, level }, axes));
    answer.replaceChildren(...parts);
  } else if (!found.faults) {
    answer.replaceChildren();
  }
  document.getElementById("explanation").replaceChildren(...(found.explanations ?? []).map(showExplanation));
  document.getElementById("problems").replaceChildren(...showProblems(found));
  answer.classList.toggle("stale", !found.answers);
  form.querySelector(".status").textContent = found.status;
}

function choice(group, name, isChosen, chosen) {
  const label = make("label");
  const input = make("input");
  Object.assign(input, { type: "radio", name: group, checked: isChosen });
  input.addEventListener("change", chosen);
  label.append(input, make("b", name));
  return label;
}
