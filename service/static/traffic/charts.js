// Charts of a page that is updated: bars and lines that fill the width of their panel. Labels are HTML beside the SVG,
// which may be stretched.

import { make } from "../elements.js";
import { svg } from "../svg.js";

const WIDTH = 600, HEIGHT = 140;
const MAX_DOTS = 15; // points that are also dots

// The smallest of 1, 2 or 5 times a power of ten that is not below a value.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value * 0.999999);
}

const y = (value, top) => (HEIGHT - (HEIGHT - 4) * Math.min(1, value / top)).toFixed(1);

function frame(label, top, ends, marks, legend) {
  const box = make("div", undefined, "chart");
  const list = make("ul", undefined, "legend");
  list.append(...legend.map(([name, className]) => make("li", name, className)));
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  picture.append(svg("line", { x1: 0, x2: WIDTH, y1: y(top / 2, top), y2: y(top / 2, top), class: "gridline" }), ...marks);
  const plot = make("div", undefined, "chart");
  plot.append(picture, make("span", ends.top, "top-value"));
  const below = make("p", undefined, "ends");
  below.append(make("span", ends.first), make("span", ends.last));
  box.append(list, plot, below);
  return box;
}

// Stacked bars: each point has `values`, one for each name of the legend, from below.
export function barChart(label, points, legend, ends) {
  const totals = points.map(({ values }) => values.reduce((sum, value) => sum + value, 0));
  const top = roundUp(Math.max(...totals));
  const width = WIDTH / points.length;
  const marks = points.flatMap(({ values, title }, i) => {
    let below = 0;
    return values.map((value, k) => {
      const [low, high] = [y(below, top), y(below += value, top)];
      const bar = { x: (i * width + width * 0.1).toFixed(1), y: high, width: (width * 0.8).toFixed(1), height: (low - high).toFixed(1) };
      return svg("rect", { ...bar, class: legend[k][1] }, svg("title", {}, title));
    });
  });
  return frame(label, top, { ...ends, top: ends.format(top) }, marks, legend);
}

// Lines: each point has `values`, one for each name of the legend; null leaves a gap. Few points are dots, too, and so
// is one between two gaps.
export function lineChart(label, points, legend, ends) {
  const top = roundUp(Math.max(0, ...points.flatMap(({ values }) => values.filter((value) => value !== null))));
  const x = (i) => (WIDTH * (i + 0.5) / points.length).toFixed(1);
  const marks = legend.flatMap(([, className], k) => {
    const pieces = [[]];
    points.forEach(({ values }, i) => {
      if (values[k] === null) pieces.push([]);
      else pieces.at(-1).push(`${x(i)},${y(values[k], top)}`);
    });
    const dots = pieces.filter((piece) => piece.length === 1 || points.length <= MAX_DOTS).flat();
    return [
      ...pieces.filter((piece) => piece.length > 1).map((piece) => svg("polyline", { points: piece.join(" "), class: className })),
      ...dots.map((at) => svg("polyline", { points: `${at} ${at}`, class: `${className} dot` })), // its round ends are not stretched
    ];
  });
  return frame(label, top, { ...ends, top: ends.format(top) }, marks, legend);
}

// Rows of name, bar and text: [{ name, share (0 to 1), text, className }].
export function countBars(rows) {
  const box = make("div", undefined, "counts");
  for (const { name, share, text, className = "" } of rows) {
    const bar = make("span", undefined, `bar ${className}`);
    const fill = make("i");
    fill.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    bar.append(fill);
    box.append(make("b", name), bar, make("span", text, "share"));
  }
  return box;
}

// A table: columns [[title, className]], rows of cells, each a text or [text, className].
export function table(columns, rows) {
  const box = make("table");
  const head = make("tr");
  for (const [title, className] of columns) {
    const cell = make("th", title, className);
    cell.scope = "col";
    head.append(cell);
  }
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell, i) => {
      const [text, className = ""] = Array.isArray(cell) ? cell : [cell];
      line.append(make("td", text, `${columns[i][1] ?? ""} ${className}`.trim()));
    });
    body.append(line);
  }
  const top = make("thead");
  top.append(head);
  box.append(top, body);
  return box;
}
