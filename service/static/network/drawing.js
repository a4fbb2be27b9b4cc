// Drawings of a layer's weights and activations. Blue is positive, orange negative; the strength is relative to the
// largest of the drawing.

import { make } from "../elements.js";
import { numeral, svg, weightLine } from "../svg.js";

const MAX_NUMBERS = 24; // values that are written as numbers
const MAX_CELLS = 1024; // values that are cells; more are the pixels of a canvas
const MAX_CHANNELS = 64;

const largestOf = (values) => values.reduce((most, value) => (value === null ? most : Math.max(most, Math.abs(value))), 0);
const shareOf = (value, largest) => (value === null || !largest ? 0 : Math.abs(value) / largest);
// `most` is the percentage of the colour of the largest: text on it needs contrast.
const colour = (value, largest, most) => `color-mix(in srgb, var(--${value < 0 ? "b" : "a"}) ${Math.round(most * shareOf(value, largest))}%, transparent)`;
const text = (value) => (value === null ? "not finite" : numeral(value));

// The output of a layer, or the input of the network: numbers, cells, or a picture for each channel.
export function drawValues(box, { shape, values }, names) {
  if (values === null) {
    box.replaceChildren(make("p", `${shape.join(" × ")} values, too many for one answer, are not shown.`, "note"));
    return;
  }
  const largest = largestOf(values);
  if (shape.length === 3) {
    box.replaceChildren(...channelsOf(shape, values, largest));
  } else if (values.length > MAX_CELLS) {
    const columns = Math.ceil(Math.sqrt(values.length));
    box.replaceChildren(picture(values, columns, Math.ceil(values.length / columns), largest, (i) => i), note(`${values.length} values, row by row`));
  } else {
    const small = values.length > MAX_NUMBERS;
    const cells = make("div", undefined, small ? "cells small" : "cells");
    cells.append(...values.map((value, i) => {
      const cell = make("span");
      const name = names?.[i];
      if (!small) {
        if (name) cell.append(make("small", name));
        cell.append(make("b", text(value)));
      }
      cell.title = `${name ?? i + 1}: ${text(value)}`;
      cell.dataset.neuron = i;
      cell.style.background = colour(value, largest, small ? 90 : 42);
      return cell;
    }));
    box.replaceChildren(cells);
  }
}

function channelsOf([height, width, channels], values, largest) {
  const shown = Math.min(channels, MAX_CHANNELS);
  const box = make("div", undefined, "pictures");
  for (let c = 0; c < shown; c += 1) {
    const own = Array.from({ length: height * width }, (_, i) => values[i * channels + c]);
    box.append(picture(own, width, height, largest, (i) => i * channels + c));
  }
  return [box, note(shown < channels ? `The first ${shown} of ${channels} channels.` : `${channels} channel${channels === 1 ? "" : "s"} of ${height} × ${width}.`)];
}

const note = (words) => make("p", words, "note");

// A canvas with a pixel for each value. `neuronOf` is the place of a pixel's value in the layer's output.
function picture(values, width, height, largest, neuronOf) {
  const canvas = make("canvas");
  Object.assign(canvas, { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Heat map of ${values.length} values from ${text(Math.min(...values))} to ${text(Math.max(...values))}`);
  paint(canvas, values, width, largest);
  if (neuronOf) {
    canvas.neuronAt = (event) => {
      const box = canvas.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
      const index = Math.floor(y) * width + Math.floor(x);
      return index >= 0 && index < values.length ? neuronOf(index) : undefined;
    };
  }
  return canvas;
}

function paint(canvas, values, width, largest) {
  const style = getComputedStyle(document.documentElement);
  const [plus, minus] = ["--a", "--b"].map((name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, canvas.height);
  values.forEach((value, i) => {
    image.data.set([...(value < 0 ? minus : plus), Math.round(255 * shareOf(value, largest))], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

// The weights of a layer in the form that the service chose.
export function drawArray(array, activations) {
  const { names, outputNames } = activations;
  const figure = make("figure");
  const caption = make("figcaption", undefined, "note");
  if (array.form === "lines") {
    figure.append(linesOf(array.values, activations));
    caption.textContent = `Each of the ${array.shape.join(" × ")} weights is a line from an input above to an output below.`;
  } else if (array.form === "kernels") {
    const largest = largestOf(array.values.flat(3));
    const box = make("div", undefined, "pictures kernels");
    for (const kernel of array.values) {
      const channels = kernel[0][0].length;
      const size = kernel.length;
      const flat = Array.from({ length: size * size * channels }, (_, i) => kernel[Math.floor(i / (size * channels))][Math.floor(i / channels) % size][i % channels]);
      // Channels stand beside each other.
      const wide = Array.from({ length: size * size * channels }, (_, i) => {
        const [row, rest] = [Math.floor(i / (size * channels)), i % (size * channels)];
        return flat[(row * size + rest % size) * channels + Math.floor(rest / size)];
      });
      const canvas = picture(wide, size * channels, size, largest);
      canvas.style.width = `${Math.min(size * channels * 12, 288)}px`;
      box.append(canvas);
    }
    figure.append(box);
    const all = array.shape[0];
    caption.textContent = `${array.values.length === all ? `The ${all}` : `The first ${array.values.length} of ${all}`} kernels of ${array.shape.slice(1).join(" × ")}; channels stand beside each other.`;
  } else if (array.form === "map") {
    const [rows, columns] = array.block;
    const flat = array.values.flat();
    const canvas = picture(flat, array.values[0].length, array.values.length, largestOf(flat));
    canvas.className = array.shape.length === 1 ? "map strip" : "map";
    figure.append(canvas);
    caption.textContent = `${array.name}: ${array.shape.length > 1 ? "a row for each output, a column for each input" : "a cell for each value"}.${
      rows * columns > 1 ? ` A cell is the largest by size of a block of ${rows} × ${columns} numbers.` : ""}`;
    if (array.largest) caption.append(` The largest: ${array.largest.slice(0, 5).map(([i, j, value]) => `${numeral(value)} (${outputNames?.[i] ?? `output ${i + 1}`}, ${names?.[j] ?? `input ${j + 1}`})`).join(", ")}.`);
  } else {
    caption.textContent = `${array.name}: ${array.shape.join(" × ")} numbers, too many for this page, are not drawn.`;
  }
  figure.append(caption);
  return figure;
}

function linesOf(weights, { before, after, names, outputNames }) {
  const [outputs, inputs] = [weights.length, weights[0].length];
  const width = Math.max(320, 26 * Math.max(inputs, outputs));
  const height = 170;
  const x = (i, size) => width * (i + 0.5) / size;
  const largest = largestOf(weights.flat());
  const radius = Math.max(inputs, outputs) > 16 ? 8 : 11;
  const parts = [];
  weights.forEach((row, j) => row.forEach((w, i) => {
    const line = svg("line", { x1: x(i, inputs), y1: 20, x2: x(j, outputs), y2: height - 20, ...weightLine(w, largest) });
    line.append(svg("title", {}, `weight from ${names?.[i] ?? `input ${i + 1}`} to ${outputNames?.[j] ?? `output ${j + 1}`}: ${text(w)}`));
    line.dataset.to = j;
    parts.push(line);
  }));
  const unit = (values, i, size, y, known) => {
    const most = largestOf(values ?? []);
    const value = values?.[i] ?? null;
    const group = svg("g", {}, svg("circle", { cx: x(i, size), cy: y, r: radius, class: "unit" }),
      svg("circle", { cx: x(i, size), cy: y, r: radius, class: `glow ${value < 0 ? "negative" : "positive"}`, "fill-opacity": shareOf(value, most).toFixed(3) }),
      svg("title", {}, `${known?.[i] ?? i + 1}: ${text(value)}`));
    return group;
  };
  for (let i = 0; i < inputs; i += 1) parts.push(unit(before.values, i, inputs, 20, names));
  for (let j = 0; j < outputs; j += 1) {
    const group = unit(after.values, j, outputs, height - 20, outputNames);
    group.dataset.neuron = j;
    parts.push(group);
  }
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${outputs} × ${inputs} weights as lines from ${inputs} inputs to ${outputs} outputs` }, ...parts);
  const box = make("div", undefined, "lines");
  box.append(drawing);
  return box;
}

// Mark a neuron: its value, and the lines that lead to it.
export function markChosen(box, layer, neuron) {
  box.querySelectorAll(".chosen").forEach((element) => element.classList.remove("chosen"));
  const item = box.querySelector(`[data-layer="${layer}"]`);
  if (!item) return;
  item.querySelectorAll(`[data-neuron="${neuron}"], [data-to="${neuron}"]`).forEach((element) => element.classList.add("chosen"));
  item.querySelectorAll("svg").forEach((drawing) => drawing.classList.add("chosen"));
}
