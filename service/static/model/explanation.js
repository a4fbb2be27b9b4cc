// What each column contributed to an answer: bars to the left and right of the baseline, and of an image a map.

import { make, short } from "../elements.js";

const MOST = 12; // columns as bars, the largest first
const COLOURS = [[228, 108, 44], [58, 120, 214]]; // of what lowers and of what raises the answer

export function showExplanation({ label, target, baseline, answer, contributions }) {
  const box = make("section", undefined, "explanation");
  const of = label ?? target;
  const heading = make("p", of === undefined ? "Why this answer" : `Why ${of}`, "why");
  const arrays = Object.entries(contributions).filter(([, value]) => Array.isArray(value));
  const part = arrays.length === Object.keys(contributions).length ? "value" : "column";
  const said = `${signed(answer - baseline)} against the baseline's ${short(Number(baseline.toPrecision(3)))}, by ${part}:`;
  box.append(heading, make("p", said, "note"));
  for (const [name, values] of arrays) box.append(map(name, values));
  const numbers = Object.entries(contributions).map(([name, value]) => [name, total(value)]);
  if (numbers.length > 1 || !arrays.length) box.append(barsOf(numbers));
  return box;
}

function barsOf(numbers) {
  const ranked = numbers.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  const others = ranked.slice(MOST);
  const shown = ranked.slice(0, MOST);
  if (others.length) shown.push([`${others.length} more`, others.reduce((sum, [, value]) => sum + value, 0)]);
  const largest = Math.max(...shown.map(([, value]) => Math.abs(value)), Number.MIN_VALUE);
  const box = make("div", undefined, "bars signed");
  for (const [name, value] of shown) {
    const bar = make("span", undefined, value < 0 ? "bar lowers" : "bar raises");
    const fill = make("i");
    const width = (50 * Math.abs(value)) / largest;
    fill.style.width = `${width}%`;
    fill.style.marginLeft = `${value < 0 ? 50 - width : 50}%`;
    bar.append(fill);
    box.append(make("b", name), bar, make("span", signed(value), "share"));
  }
  return box;
}

// An image's contributions, of all channels together: the stronger the colour, the more a pixel contributed.
function map(name, values) {
  const lines = (Array.isArray(values[0]) ? values : [values]).map((line) => line.map(total));
  const largest = Math.max(...lines.flat().map(Math.abs), Number.MIN_VALUE);
  const canvas = make("canvas", undefined, "contributions");
  Object.assign(canvas, { width: lines[0].length, height: lines.length });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `What the values of ${name} contributed: blue raised the answer, orange lowered it`);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  lines.flat().forEach((value, i) => {
    pixels.data.set([...COLOURS[Number(value > 0)], Math.round(255 * Math.sqrt(Math.abs(value) / largest))], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  const figure = make("figure", undefined, "map");
  figure.append(canvas, make("figcaption", "Blue raised the answer, orange lowered it.", "note"));
  return figure;
}

function total(value) {
  return Array.isArray(value) ? value.reduce((sum, each) => sum + total(each), 0) : value;
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${short(Number(Math.abs(value).toPrecision(3)))}`;
}
