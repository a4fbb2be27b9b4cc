// Fields of the form: a slider over the training values for a number, choices for a category, text for others.

import { make, short } from "../elements.js";
import { svg } from "../svg.js";

const WIDTH = 400; // of a histogram, in its own units
const HEIGHT = 36;
const MAX_BUTTONS = 6; // more categories are a list
let count = 0;

// Return { element, set(value) }; `changed(value)` is called with what the user gives, null for a missing value.
export function makeField(column, value, changed) {
  if (column.widget === "number") return numberField(column, value, changed);
  if (column.widget === "select") {
    return column.options.length <= MAX_BUTTONS ? buttons(column, value, changed) : list(column, value, changed);
  }
  return textField(column, value, changed);
}

const shownFill = (column) => (column.required ? "" : `missing: ${column.fill || "empty"} is used`);

function labelled(column, input, ...others) {
  const element = make("div", undefined, `field ${column.widget}`);
  const label = make("label", column.name);
  label.htmlFor = input.id = `field-${++count}`;
  element.append(label, ...others, input);
  return element;
}

// Numbers ------------------------------------------------------------------------------------------------------------

function numberField(column, value, changed) {
  const input = make("input");
  Object.assign(input, { type: "text", inputMode: "decimal", autocomplete: "off", spellcheck: false, placeholder: column.required ? "" : "missing" });
  const note = make("p", undefined, "outside");
  const isKnown = column.min < column.max;
  const scale = isKnown ? scaleOf(column) : null;
  const slider = isKnown ? makeSlider(column, scale) : null;
  const element = labelled(column, input, ...(slider ? [slider.element] : []));
  element.append(note);

  const describe = (given) => {
    const outside = isKnown && typeof given === "number" && (given < column.min || given > column.max);
    element.classList.toggle("is-outside", outside);
    note.textContent = outside ? `outside the training rows, ${short(column.min)} to ${short(column.max)}` : given === null ? shownFill(column) : "";
  };
  const set = (given) => {
    input.value = given === null || given === undefined ? "" : String(given);
    slider?.set(given);
    describe(given ?? null);
  };
  input.addEventListener("input", () => {
    const given = parsed(input.value);
    slider?.set(given);
    describe(given);
    changed(given);
  });
  slider?.input.addEventListener("input", () => {
    const given = scale.toValue(Number(slider.input.value));
    input.value = String(given);
    slider.set(given);
    describe(given);
    changed(given);
  });
  set(value);
  return { element, set };
}

// A number as a number, any other text as it is, so that the service reports the error.
function parsed(text) {
  const given = text.trim();
  if (given === "") return null;
  return Number.isFinite(Number(given)) ? Number(given) : given;
}

function makeSlider(column, scale) {
  const input = make("input");
  Object.assign(input, { type: "range", min: scale.min, max: scale.max, step: scale.step });
  input.setAttribute("aria-label", `${column.name}, slider`);
  const element = make("div", undefined, "slider");
  element.append(histogram(column, scale), input);
  const set = (value) => {
    if (typeof value !== "number") return;
    input.value = String(scale.toPosition(value));
    input.setAttribute("aria-valuetext", short(value));
  };
  return { element, input, set };
}

// Return the scale of a slider: linear, or for a long tail asinh, so that most rows do not share a pixel.
export function scaleOf({ min, max, deciles, integral }) {
  const spread = max - min;
  const core = deciles ? deciles[9] - deciles[1] : spread;
  if (core > 0 && spread > 15 * core) {
    const [centre, width] = [deciles[5], core / 2];
    const warp = (value) => Math.asinh((value - centre) / width);
    const margin = 0.08 * (warp(max) - warp(min));
    const [low, high] = [warp(min) - margin, warp(max) + margin];
    return {
      min: 0,
      max: WIDTH,
      step: 1,
      toPosition: (value) => (WIDTH * (warp(value) - low)) / (high - low),
      toValue: (position) => Number((centre + width * Math.sinh(low + (position / WIDTH) * (high - low))).toPrecision(3)),
    };
  }
  const step = integral && spread >= 3 ? Math.max(1, Math.round(niceStep(spread / 200))) : niceStep(spread / 200);
  const [low, high] = [Math.floor((min - 0.15 * spread) / step) * step, Math.ceil((max + 0.15 * spread) / step) * step];
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return {
    min: low,
    max: high,
    step,
    toPosition: (value) => value,
    toValue: (position) => Number(position.toFixed(Math.min(digits, 20))),
  };
}

function niceStep(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return power * (size / power < 1.5 ? 1 : size / power < 3.5 ? 2 : size / power < 7.5 ? 5 : 10);
}

// Bars between the deciles of the training rows; the area of each is its share of the rows. The range is shaded.
function histogram({ min, max, bins = [] }, scale) {
  const x = (value) => (WIDTH * (scale.toPosition(value) - scale.min)) / (scale.max - scale.min);
  const density = bins.map(([from, to, rows]) => rows / Math.max(x(to) - x(from), 1));
  const top = Math.min(Math.max(...density), 5 * [...density].sort((a, b) => a - b)[Math.floor(density.length / 2)] || Infinity);
  const shapes = bins.map(([from, to], i) => {
    const height = Math.max(1, HEIGHT * Math.min(1, density[i] / top));
    return svg("rect", { class: "bin", x: x(from), width: Math.max(1, x(to) - x(from) - 1), y: HEIGHT - height, height });
  });
  const range = svg("rect", { class: "range", x: x(min), width: x(max) - x(min), y: 0, height: HEIGHT });
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, range, ...shapes);
}

// Categories and texts -----------------------------------------------------------------------------------------------

function optionsOf(column) {
  const found = column.options.map((text) => ({ value: text, text: text || "(empty text)" }));
  return column.required ? found : [...found, { value: null, text: "missing" }];
}

function buttons(column, value, changed) {
  const element = make("fieldset", undefined, "field choices");
  element.append(make("legend", column.name));
  const group = `field-${++count}`;
  const inputs = optionsOf(column).map((option) => {
    const input = make("input");
    Object.assign(input, { type: "radio", name: group });
    input.addEventListener("change", () => changed(option.value));
    const label = make("label");
    label.append(input, make("b", option.text));
    element.append(label);
    return [option.value, input];
  });
  const set = (given) => inputs.forEach(([own, input]) => { input.checked = own === (typeof given === "number" ? String(given) : given); });
  set(value);
  return { element, set };
}

function list(column, value, changed) {
  const input = make("select");
  const options = optionsOf(column);
  input.append(...options.map(({ text }) => make("option", text)));
  input.addEventListener("change", () => changed(options[input.selectedIndex].value));
  const set = (given) => { input.selectedIndex = options.findIndex((option) => option.value === (typeof given === "number" ? String(given) : given)); };
  set(value);
  return { element: labelled(column, input), set };
}

function textField(column, value, changed) {
  const input = make(column.kind === "text" ? "textarea" : "input");
  Object.assign(input, { autocomplete: "off", spellcheck: false, placeholder: column.required ? "" : "missing" });
  const element = labelled(column, input);
  if (column.options) {
    const known = make("datalist");
    known.id = `${input.id}-options`;
    known.append(...column.options.map((text) => { const option = make("option"); option.value = text; return option; }));
    input.setAttribute("list", known.id);
    element.append(known);
  }
  const note = make("p", column.hint, "note");
  element.append(note);
  input.addEventListener("input", () => changed(input.value === "" ? null : input.value));
  const set = (given) => { input.value = given === null || given === undefined ? "" : String(given); };
  set(value);
  return { element, set };
}
