// The decision surface of a model of two numbers: its answers on a grid, computed in one request.

import { make, printable, short } from "../elements.js";
import { svg } from "../svg.js";
import { scaleOf } from "./fields.js";

const MAX_SIDE = 61; // of the grid, in points
const MAX_COLOURS = 6; // further labels share the last one
// Of labels, as red, green and blue: people can distinguish them with all kinds of colour vision, and on light and dark ground.
const COLOURS = [[0, 101, 168], [230, 140, 40], [20, 140, 110], [200, 90, 150], [120, 190, 235], [150, 150, 150]];

// Return { element, mark(row) }, null for a model of other columns. `chosen(values)` is called for a click.
export function makeSurface({ columns, columnCount, output, maxRows }, predictor, chosen) {
  const isSurface = columnCount === 2 && columns.every(({ kind, min, max }) => kind === "number" && min < max);
  const side = Math.min(MAX_SIDE, Math.floor(Math.sqrt(maxRows)));
  if (!isSurface || side < 8) return null;
  const scales = columns.map(scaleOf);
  const at = (scale, share) => scale.toValue(scale.min + share * (scale.max - scale.min));
  const shareOf = (scale, value) => (scale.toPosition(value) - scale.min) / (scale.max - scale.min);

  const element = make("figure", undefined, "surface");
  const canvas = make("canvas");
  Object.assign(canvas, { width: side, height: side });
  canvas.setAttribute("role", "img");
  const marks = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const plot = make("div", undefined, "plot");
  plot.append(canvas, marks);
  const legend = make("p", undefined, "legend");
  const button = make("button", "Compute again", "quiet");
  button.type = "button";
  const [x, y] = columns;
  element.append(
    make("figcaption", "Decision surface"),
    plot,
    axis(columns[0], scales[0], "x"),
    axis(columns[1], scales[1], "y"),
    legend,
    button,
  );
  // The training rows are inside this frame.
  const [[left, right], [low, high]] = columns.map(({ min, max }, i) => [shareOf(scales[i], min), shareOf(scales[i], max)]);
  marks.append(svg("rect", { class: "range", x: 100 * left, width: 100 * (right - left), y: 100 * (1 - high), height: 100 * (high - low) }));
  const cross = svg("g", { class: "cross" }, svg("line"), svg("line"));
  marks.append(cross);

  const mark = (row) => {
    const [a, b] = columns.map(({ name }, i) => shareOf(scales[i], row?.[name]));
    cross.toggleAttribute("hidden", ![a, b].every(Number.isFinite));
    const [down, along] = cross.children;
    for (const [line, place] of [[down, { x1: 100 * a, x2: 100 * a, y1: 0, y2: 100 }], [along, { x1: 0, x2: 100, y1: 100 * (1 - b), y2: 100 * (1 - b) }]]) {
      for (const [key, value] of Object.entries(place)) line.setAttribute(key, Number.isFinite(value) ? value : 0);
    }
  };
  const compute = async () => {
    const rows = [];
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        rows.push({ [x.name]: at(scales[0], j / (side - 1)), [y.name]: at(scales[1], 1 - i / (side - 1)) });
      }
    }
    const { answers, faults } = await predictor.predict(rows);
    if (!answers) {
      legend.textContent = printable(faults.message);
      return;
    }
    const { colours, entries, words } = shaded(answers, output);
    paint(canvas, colours, side);
    legend.replaceChildren(...entries);
    canvas.setAttribute("aria-label", printable(`Decision surface over ${x.name} and ${y.name}: ${words}`));
    element.dataset.ready = "";
  };
  canvas.setAttribute("aria-label", "Decision surface");
  plot.addEventListener("click", (event) => {
    const box = plot.getBoundingClientRect();
    const [a, b] = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    chosen({ [x.name]: at(scales[0], a), [y.name]: at(scales[1], b) });
  });
  button.addEventListener("click", compute);
  compute();
  return { element, mark };
}

function axis({ name }, scale, kind) {
  const line = make("p", undefined, `axis ${kind}`);
  line.append(make("span", short(scale.toValue(scale.min))), make("b", name), make("span", short(scale.toValue(scale.max))));
  return line;
}

// Return a colour for each answer, and the legend as elements and as words.
function shaded(answers, output) {
  if (output.kind !== "values") return byLabel(answers, output);
  const values = answers.map((answer) => (typeof answer === "number" ? answer : Object.values(answer)[0]));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const colours = values.map((value) => mixed(COLOURS[0], COLOURS[1], high > low ? (value - low) / (high - low) : 0.5));
  const words = `${output.names[0]} from ${short(low)} to ${short(high)}`;
  const ramp = make("canvas", undefined, "ramp");
  Object.assign(ramp, { width: 64, height: 1 });
  const context = ramp.getContext("2d");
  for (let i = 0; i < 64; i++) {
    context.fillStyle = `rgb(${mixed(COLOURS[0], COLOURS[1], i / 63).join(" ")})`;
    context.fillRect(i, 0, 1, 1);
  }
  return { colours, words, entries: [make("span", short(low)), ramp, make("span", short(high)), make("b", output.names[0])] };
}

// The colour of the most probable label; the paler, the less probable it is.
function byLabel(answers, output) {
  const labels = output.labels.map(String);
  const colourOf = (i) => COLOURS[Math.min(i, MAX_COLOURS - 1)];
  const found = answers.map(({ probabilities }) => {
    const [label, share] = Object.entries(probabilities).reduce((best, one) => (one[1] > best[1] ? one : best));
    return [labels.indexOf(label), share];
  });
  const floor = 1 / Math.max(2, labels.length);
  const colours = found.map(([i, share]) => mixed([255, 255, 255], colourOf(i), 0.25 + 0.75 * Math.max(0, (share - floor) / (1 - floor))));
  const shown = labels.map((label, i) => ({ label, i })).filter(({ i }) => found.some(([own]) => own === i));
  const entries = shown.slice(0, 12).map(({ label, i }) => {
    const entry = make("span");
    const swatch = make("i");
    swatch.style.background = `rgb(${colourOf(i).join(" ")})`;
    entry.append(swatch, make("b", label));
    return entry;
  });
  return { colours, entries, words: `areas of ${shown.map(({ label }) => label).join(", ")}` };
}

const mixed = (from, to, share) => from.map((value, i) => Math.round(value + share * (to[i] - value)));

function paint(canvas, colours, side) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  colours.forEach((colour, i) => image.data.set([...colour, 255], 4 * i));
  context.putImageData(image, 0, 0);
}
