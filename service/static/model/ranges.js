// How sure an answer is: the interval of a number on its axis, and the set of labels as chips.

import { make, short } from "../elements.js";
import { svg } from "../svg.js";

const LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99];
const FIRST_LEVEL = "0.9";

// Return a select of the levels that the model can promise, null if it promises none. `level` has its number, or 0.
export function makeLevelChoice({ levels }, changed) {
  const possible = LEVELS.filter((level) => level <= (levels?.max ?? 0));
  if (!possible.length) return null;
  const label = make("label", undefined, "switch");
  const select = make("select");
  const all = [["0", "off"], ...possible.map((level) => [String(level), percent(level)])];
  select.append(...all.map(([value, text]) => Object.assign(make("option", text), { value })));
  select.value = possible.map(String).includes(FIRST_LEVEL) ? FIRST_LEVEL : String(possible[0]);
  select.addEventListener("change", changed);
  label.append(make("b", levels.key === "set" ? "Set of labels" : "Interval"), select);
  return { element: label, get asked() { return Number(select.value) ? { [levels.key]: Number(select.value) } : {}; } };
}

// Show what a response has for one row. `axes` remembers how far each axis reaches: it grows, so that the band moves
// while a slider does.
export function showRange(answer, { interval, set, level }, axes = new Map()) {
  const box = make("section", undefined, "ranges");
  const said = level ? `In ${percent(level)} of all cases` : "As often as asked for";
  if (set) {
    const list = make("ul", undefined, "chips");
    list.append(...set.map((label) => make("li", String(label))));
    box.append(make("p", `${said} the label is ${set.length === 1 ? "this one" : "one of these"}:`, "note"), list);
  }
  if (!interval) return box;
  box.append(make("p", `${said} the value is in this interval:`, "note"));
  const named = Array.isArray(interval) ? [["", interval, answer]] : Object.entries(interval).map(([name, ends]) => [name, ends, answer[name]]);
  for (const [name, ends, value] of named) box.append(showInterval(name, ends, value, axes));
  return box;
}

function showInterval(name, [low, high], value, axes) {
  const known = axes.get(name) ?? [low, high];
  const [least, most] = [Math.min(known[0], low), Math.max(known[1], high)];
  axes.set(name, [least, most]);
  const margin = 0.08 * (most - least) || 1;
  const at = (x) => `${((100 * (x - least + margin)) / (most - least + 2 * margin)).toFixed(2)}%`;
  const text = `${short(rounded(low))} to ${short(rounded(high))}`;
  const drawing = svg(
    "svg",
    { class: "interval", role: "img", "aria-label": `${name} ${text}`.trim() },
    svg("line", { class: "axis", x1: "0%", x2: "100%", y1: 12, y2: 12 }),
    svg("line", { class: "band", x1: at(low), x2: at(high), y1: 12, y2: 12 }),
    svg("circle", { cx: at(value), cy: 12, r: 5 }),
  );
  const figure = make("figure", undefined, "interval-of");
  const caption = make("figcaption", name ? `${name} ` : undefined);
  caption.append(make("b", text));
  figure.append(drawing, caption);
  return figure;
}

const rounded = (value) => Number(value.toPrecision(4));
const percent = (level) => `${Number((100 * level).toFixed(1))} %`;
