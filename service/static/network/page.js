// The page of a network: its layers with their weights, and one row passing through them. The service computes the
// activations and the formula of the chosen neuron.

import { make, printable, short, showFaults } from "../elements.js";
import { drawArray, drawValues, markChosen } from "./drawing.js";
import { ask } from "../page.js";
import { numeral } from "../svg.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 120; // between a key press and the request

export async function start({ signal }) {
  const box = $("network");
  const { path } = box.dataset;
  const [layerField, neuronField, memberField] = ["layer", "neuron", "member"].map($);
  const fields = [...box.querySelectorAll("[data-column]")];
  let network;
  let timer;
  let request = new AbortController();
  let activations; // the last answer

  const fail = (error) => $("failure").replaceChildren(showFaults(error));
  const member = () => Number(memberField?.value ?? 0);

  async function load() {
    try {
      const response = await ask(`${path}/network?member=${member()}`, { headers: { Accept: "application/json" }, signal });
      const body = await response.json();
      if (!response.ok) {
        fail(body.error);
        return;
      }
      network = body;
      showNetwork(network);
      const chosen = layerField.value;
      layerField.replaceChildren(...network.layers.map((layer, i) => {
        const option = make("option", `${i + 1} ${layer.type}`);
        option.value = i;
        return option;
      }));
      const first = network.layers.findIndex(({ type }) => type === "Linear" || type === "Conv2D");
      layerField.value = chosen || Math.max(0, first);
      limitNeuron();
      box.hidden = false;
      await send();
    } catch (problem) {
      if (problem.name !== "AbortError") fail({ code: "no response", message: String(problem), faults: [] });
    }
  }

  function limitNeuron() {
    const count = sizeOf(network.layers[layerField.value].output_shape);
    neuronField.max = count || "";
    $("of").textContent = count ? `of ${count}` : "";
    if (count && Number(neuronField.value) > count) neuronField.value = count;
  }

  async function send() {
    request.abort();
    request = new AbortController();
    let row;
    try {
      row = JSON.parse($("json").value);
    } catch (problem) {
      $("answer").replaceChildren(showFaults({ code: "row", message: String(problem.message), faults: [] }));
      return;
    }
    const body = { instances: [row], member: member() };
    if (neuronField.value && neuronField.validity.valid) {
      body.layer = Number(layerField.value);
      body.neuron = Number(neuronField.value) - 1;
    }
    try {
      const response = await ask(`${path}/activations`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.any([signal, request.signal]),
      });
      const answer = await response.json();
      if (!response.ok) {
        $("answer").replaceChildren(showFaults(answer.error));
        return;
      }
      activations = answer;
      $("answer").replaceChildren(make("p", answerText(answer.predictions[0]), "answer"));
      showActivations(network, activations);
      markChosen($("layers"), body.layer, body.neuron);
      $("explanation").replaceChildren(...(answer.neuron ?? []).flatMap((one) => explanationOf(one, network)));
    } catch (problem) {
      if (problem.name !== "AbortError") fail({ code: "no response", message: String(problem), faults: [] });
    }
  }

  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(send, PAUSE_MS);
  };
  const example = $("json").value ? JSON.parse($("json").value) : {};
  for (const field of fields) {
    const value = example[field.dataset.column];
    if (field.tagName !== "SELECT") field.value = value ?? "";
    else if (value !== null && value !== undefined) field.value = value;
    field.addEventListener("input", () => {
      $("json").value = JSON.stringify(Object.fromEntries(fields.map((one) => [one.dataset.column, valueOf(one)])));
      later();
    });
  }
  $("json").addEventListener("input", later);
  $("row").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  layerField.addEventListener("change", () => { limitNeuron(); later(); });
  neuronField.addEventListener("input", later);
  memberField?.addEventListener("change", load);
  $("layers").addEventListener("click", (event) => {
    const layer = event.target.closest("[data-layer]")?.dataset.layer;
    const neuron = event.target.closest("[data-neuron]")?.dataset.neuron ?? event.target.neuronAt?.(event);
    if (layer === undefined || neuron === undefined) return;
    layerField.value = layer;
    neuronField.value = Number(neuron) + 1;
    limitNeuron();
    send();
  });
  signal.addEventListener("abort", () => clearTimeout(timer));
  await load();
}

// A number as a number and any other text as a string, so that the service reports the error.
function valueOf(field) {
  if (field.tagName === "SELECT") return field.selectedOptions[0].hasAttribute("data-missing") ? null : field.value;
  const text = field.value.trim();
  if (text === "") return null;
  return field.dataset.widget === "number" && Number.isFinite(Number(text)) ? Number(text) : field.value;
}

const sizeOf = (shape) => (shape ? shape.reduce((total, side) => total * side, 1) : 0);
const shapeText = (shape) => (shape ? shape.join(" × ") : "any");
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function answerText(prediction) {
  if (prediction === null || typeof prediction !== "object") return short(prediction);
  if ("labels" in prediction) return prediction.labels.join(", ") || "none of the labels";
  if ("label" in prediction) return `${prediction.label}, ${(100 * (prediction.probabilities?.[prediction.label] ?? 0)).toFixed(1)} %`;
  return Object.entries(prediction).map(([name, value]) => `${name} ${short(value)}`).join(", ");
}

function showNetwork(network) {
  const { parameters, layers, members, dtype } = network;
  const before = $("summary").dataset.description ?? $("summary").textContent;
  $("summary").dataset.description = before;
  const facts = [count(layers.length, "layer"), count(parameters, "parameter"), dtype];
  if (members > 1) facts.unshift(`ensemble of ${members} networks`);
  $("summary").textContent = `${before}${before ? ". " : ""}${facts.join(", ")}.`;
  $("inputs").replaceChildren(valuesBox("Input of the network", "What the columns of the row become: the encoded row.", network.input_shape));
  $("layers").replaceChildren(...layers.map((layer, i) => {
    const item = make("li", undefined, "panel layer");
    item.dataset.layer = i;
    const title = make("h2", `${i + 1} ${layer.type}`);
    title.append(" ", make("span", `${shapeText(layer.input_shape)} → ${shapeText(layer.output_shape)}`, "version"));
    item.append(title, make("p", layer.formula, "formula"));
    const arrays = layer.arrays.map((array) => `${array.name} ${shapeText(array.shape)}`).join(", ");
    if (arrays || layer.parameters) item.append(make("p", `${layer.parameters ? count(layer.parameters, "parameter") : "No parameters"}: ${arrays || "those of its networks"}`, "note"));
    const drawings = make("div", undefined, "drawings");
    item.append(drawings, make("div", undefined, "values"));
    return item;
  }));
  $("rest").textContent = network.hidden_layers ? `${network.hidden_layers} more layers are not shown: the page shows the first ${layers.length}.` : "";
}

function valuesBox(title, note, shape) {
  const panel = make("section", undefined, "panel layer");
  const heading = make("h2", title);
  heading.append(" ", make("span", shapeText(shape), "version"));
  panel.append(heading, make("p", note, "note"), make("div", undefined, "values"));
  return panel;
}

function showActivations(network, activations) {
  const shape = network.image_shape ?? activations.inputs.shape;
  drawValues($("inputs").querySelector(".values"), { ...activations.inputs, shape }, network.input_names);
  let before = activations.inputs;
  let names = network.input_names;
  [...$("layers").children].forEach((item, i) => {
    const layer = network.layers[i];
    const after = activations.layers[i];
    const drawn = layer.arrays.map((array) => drawArray(array, { before, after, names, outputNames: layer.names }));
    item.querySelector(".drawings").replaceChildren(...drawn);
    drawValues(item.querySelector(".values"), after, layer.names);
    before = after;
    names = layer.names;
  });
}

function explanationOf(one, network) {
  const name = network.layers[one.layer]?.names?.[one.neuron];
  const title = make("h3", `${one.layer + 1} ${one.type}, ${name ?? `neuron ${one.neuron + 1}`}`);
  const formula = make("p", one.formula, "formula");
  const numbers = make("p", undefined, "numbers");
  numbers.append(one.numbers ? `= ${printable(one.numbers)} ` : "", make("b", `= ${show(one.value)}`));
  const found = [title, formula];
  if (one.place) found.push(make("p", one.place, "note"));
  found.push(numbers);
  if (one.terms) found.push(termsTable(one));
  return found;
}

const show = (value) => (value === null ? "not a finite number" : numeral(value));

function termsTable({ terms, others, bias, value }) {
  const table = make("table", undefined, "terms");
  const head = make("tr");
  for (const text of ["input", "w", "x", "w x"]) head.append(make("th", text));
  const rows = terms.map(({ name, weight, input, product }) => [name, show(weight), show(input), show(product)]);
  if (others) rows.push([`${others.count} smaller terms`, "", "", show(others.sum)]);
  if (bias !== null) rows.push(["bias b", "", "", show(bias)]);
  rows.push(["sum y", "", "", show(value)]);
  const body = make("tbody");
  rows.forEach((cells, i) => {
    const line = make("tr", undefined, i === rows.length - 1 ? "current" : "");
    cells.forEach((text, j) => line.append(make(j ? "td" : "th", text)));
    line.firstChild.scope = "row";
    body.append(line);
  });
  const top = make("thead");
  top.append(head);
  table.append(top, body);
  return table;
}
