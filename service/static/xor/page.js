// The page /xor: a training run of XOR, drawn while it runs. The mathematics is in training.js.

import { make } from "../elements.js";
import { numeral, svg, weightLine } from "../svg.js";
import { ROWS, Training } from "./training.js";
import { formulasOf, PHASE_TEXTS } from "./formulas.js";

// For each speed its name, and phases a second; from the third on, whole steps.
const SPEEDS = [
  ["1 phase a second", 1], ["4 phases a second", 4], ["4 steps a second", 16], ["20 steps a second", 80],
  ["100 steps a second", 400], ["1,000 steps a second", 4000], ["10,000 steps a second", 40000],
];
const LAST_EPOCH = 20000;
const SUBSCRIPTS = ["₁", "₂", "₃"];
const $ = (id) => document.getElementById(id);

export function start({ signal }) {
  const [play, rate, seed, speed] = ["play", "rate", "seed", "speed"].map($);
  let training;
  let timer = 0; // of the next frame while it plays
  let last = 0; // the time of the last frame
  let due = 0; // phases that should have run until now, a fraction

  const rateNow = () => (rate.validity.valid ? rate.valueAsNumber : 0.1);

  const pause = () => {
    cancelAnimationFrame(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const draw = () => {
    drawProgress(training, timer !== 0);
    drawDiagram(training);
    drawCurve(training);
    drawSurface(training);
    drawAnswers(training);
    drawFormulas(training);
  };
  const frame = (now) => {
    const [, perSecond] = SPEEDS[speed.value];
    due += Math.min(0.25, (now - last) / 1000) * perSecond; // a hidden page gets no frames, and does not catch up
    last = now;
    const before = due;
    const whole = speed.value >= 2 ? 4 : 1;
    while (due >= whole) {
      if (whole === 4) training.finishStep(rateNow());
      else training.advance(rateNow());
      due -= whole;
    }
    if (due !== before) draw();
    timer = requestAnimationFrame(frame);
    if (training.errors.length >= LAST_EPOCH || !Number.isFinite(training.error ?? 0)) pause();
  };
  const reset = () => {
    pause();
    training = new Training(seed.validity.valid ? seed.valueAsNumber : 0);
    due = 0;
    draw();
  };
  const showSpeed = () => { $("speed-text").textContent = SPEEDS[speed.value][0]; };

  play.addEventListener("click", () => {
    if (timer) {
      pause();
      return;
    }
    play.textContent = "Pause";
    last = performance.now();
    timer = requestAnimationFrame(frame);
  });
  $("phase").addEventListener("click", () => { pause(); training.advance(rateNow()); draw(); });
  $("step").addEventListener("click", () => { pause(); training.finishStep(rateNow()); draw(); });
  $("reset").addEventListener("click", reset);
  seed.addEventListener("input", reset);
  speed.addEventListener("input", showSpeed);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawSurface(training), { signal });
  signal.addEventListener("abort", pause);
  showSpeed();
  reset();
  $("xor").hidden = false;
}

function drawProgress(training, playing) {
  $("progress").setAttribute("aria-live", playing ? "off" : "polite");
  for (const item of $("phases").children) {
    if (item.dataset.phase === training.phase) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  }
  const error = training.errors.at(-1);
  $("progress").textContent = training.phase === null
    ? "The weights are random. Press Play, or take one phase or one step at a time."
    : `Epoch ${training.errors.length + (training.phase === "update" && !training.epochLosses.length ? 0 : 1)}, `
      + `row ${training.row[0].join(", ")} → ${training.row[1]}, ${training.step} updates`
      + (error === undefined ? "" : `; mean loss of the last epoch ${numeral(error)}`);
}

// Units from left to right, each weight a line between two of them.
function drawDiagram(training) {
  const [first, hidden, last, output] = training.modules;
  const ran = training.phase !== null;
  const value = (module, j) => (ran ? module.outputs[j] : null);
  const columns = [
    training.row[0].map((x, i) => ({ name: `x${SUBSCRIPTS[i]}`, value: ran ? x : null })),
    first.bias.map((b, j) => ({ name: `h${SUBSCRIPTS[j]}`, value: value(hidden, j), bias: b })),
    last.bias.map((b, j) => ({ name: "y", value: value(output, j), bias: b })),
  ];
  const xs = [30, 205, 370];
  const y = (column, i) => ({ 1: [195], 2: [110, 280], 3: [45, 195, 345] })[column.length][i];
  const parts = [];
  const texts = [];
  [first, last].forEach((module, layer) => {
    const largest = Math.max(...module.weights.flat().map(Math.abs));
    module.weights.forEach((row, j) => row.forEach((w, i) => {
      const [x1, y1, x2, y2] = [xs[layer], y(columns[layer], i), xs[layer + 1], y(columns[layer + 1], j)];
      const name = layer ? `v${SUBSCRIPTS[i]}` : `w${SUBSCRIPTS[j]}${SUBSCRIPTS[i]}`;
      parts.push(svg("line", { x1, y1, x2, y2, ...weightLine(w, largest) }, svg("title", {}, `${name} = ${numeral(w)}`)));
      const share = layer ? 0.5 : i ? 0.7 : 0.3; // so that labels of crossing lines are apart
      texts.push(svg("text", { x: x1 + share * (x2 - x1), y: y1 + share * (y2 - y1) + 4, class: "middle over" }, `${name} ${numeral(w)}`));
    }));
  });
  columns.forEach((column, layer) => column.forEach((unit, i) => {
    const [x, at] = [xs[layer], y(column, i)];
    const sign = unit.value === null ? "" : unit.value < 0 ? " negative" : " positive";
    const strength = unit.value === null ? 0 : Math.min(1, Math.abs(unit.value));
    parts.push(svg("circle", { cx: x, cy: at, r: 26, class: "unit" }));
    parts.push(svg("circle", { cx: x, cy: at, r: 26, class: `glow${sign}`, "fill-opacity": (0.45 * strength).toFixed(3) }));
    texts.push(svg("text", { x, y: unit.value === null ? at + 4 : at - 3, class: "middle name" }, unit.name));
    if (unit.value !== null) texts.push(svg("text", { x, y: at + 12, class: "middle" }, layer ? unit.value.toFixed(3).replace("-", "−") : String(unit.value)));
    if (unit.bias !== undefined) texts.push(svg("text", { x, y: at + 42, class: "middle over" }, `${layer === 1 ? `b${SUBSCRIPTS[i]}` : "c"} ${numeral(unit.bias)}`));
  }));
  const label = `Network of two inputs, three hidden units and one output; ${training.phase === null ? "no row has run yet"
    : `input ${training.row[0].join(", ")}, output ${numeral(training.output[0])}`}`;
  $("diagram").replaceChildren(svg("svg", { viewBox: "0 0 400 400", role: "img", "aria-label": label }, ...parts, ...texts));
}

// The loss on a logarithmic axis from 10 down to 0.0001: of the untrained network, then of each epoch.
function drawCurve({ untrained, errors }) {
  const [left, right, top, bottom] = [54, 352, 10, 210];
  const x = (i) => left + (right - left) * i / Math.max(errors.length, 20);
  const y = (error) => {
    const power = Math.min(1, Math.max(-4, Math.log10(error)));
    return top + (bottom - top) * (1 - power) / 5;
  };
  const parts = [1, 0, -1, -2, -3, -4].flatMap((power) => [
    svg("line", { x1: left, x2: right, y1: y(10 ** power), y2: y(10 ** power), class: "grid" }),
    svg("text", { x: left - 6, y: y(10 ** power) + 4, class: "end tick" }, String(10 ** power)),
  ]);
  const every = Math.ceil((errors.length + 1) / 400);
  const losses = [untrained, ...errors];
  const points = losses.flatMap((error, i) => (i % every && i !== errors.length ? [] : [`${x(i).toFixed(1)},${y(error).toFixed(1)}`]));
  parts.push(svg("polyline", { points: points.join(" "), class: "line" }));
  parts.push(svg("circle", { cx: x(errors.length), cy: y(losses.at(-1)), r: 3.5, class: "dot" }));
  if (!errors.length) parts.push(svg("text", { x: x(0) + 12, y: y(untrained) + 4, class: "over" }, `untrained: ${numeral(untrained)}`));
  parts.push(svg("text", { x: right, y: bottom + 18, class: "end tick" }, `${errors.length} epochs`));
  const label = errors.length ? `Loss by epoch: ${numeral(errors[0])} in the first, ${numeral(errors.at(-1))} in epoch ${errors.length}` : `Loss of the untrained network: ${numeral(untrained)}`;
  $("curve").replaceChildren(svg("svg", { viewBox: "0 0 360 236", role: "img", "aria-label": label }, ...parts));
}

// A pixel is the output for its inputs: the colour of 1 at 1, of 0 at 0, the ground halfway; darker below 0.
function drawSurface(training) {
  const canvas = $("surface");
  const style = getComputedStyle(document.documentElement);
  const [one, zero, ground] = ["--a", "--b", "--raised"].map((name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  });
  const size = canvas.width;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let row = 0; row < size; row += 1) {
    for (let column = 0; column < size; column += 1) {
      const [y] = training.evaluate([-0.25 + 1.5 * (column + 0.5) / size, 1.25 - 1.5 * (row + 0.5) / size]);
      const share = Math.max(-1, Math.min(1, 2 * y - 1));
      const colour = share < 0 ? zero : one;
      const light = 1 + 0.5 * Math.min(0, y);
      image.data.set([...ground.map((value, i) => light * (value + 0.75 * Math.abs(share) * (colour[i] - value))), 255], 4 * (row * size + column));
    }
  }
  context.putImageData(image, 0, 0);
  const box = canvas.parentElement;
  box.querySelector("svg")?.remove();
  const place = ([a, b]) => ({ cx: 100 * (a + 0.25) / 1.5, cy: 100 * (1.25 - b) / 1.5 });
  box.append(svg("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }, ...ROWS.flatMap(([x, [target]]) => {
    const { cx, cy } = place(x);
    return [
      svg("circle", { cx, cy, r: 3, class: target ? "row positive" : "row negative" }),
      svg("text", { x: cx, y: cy + 8.5, class: "middle over" }, `(${x.join(", ")})`),
    ];
  })));
}

function drawAnswers(training) {
  $("answers").replaceChildren(...ROWS.map(([x, [target]]) => {
    const line = make("tr");
    const current = training.phase !== null && training.row[0] === x;
    if (current) line.className = "current";
    for (const value of [...x, target]) line.append(make("td", String(value)));
    line.append(make("td", numeral(training.evaluate(x)[0])));
    return line;
  }));
}

function drawFormulas(training) {
  if (training.phase === null) {
    $("formulas-title").textContent = "The four phases of a step";
    $("formulas-lead").textContent = "Press “Next phase”: the numbers of each phase appear here, beside the formulas that computed them.";
    $("formulas").replaceChildren(...Object.values(PHASE_TEXTS).map((text) => {
      const [name, rest] = text.split(/: (.*)/s);
      const group = make("section");
      group.append(make("h3", name), make("p", `${rest[0].toUpperCase()}${rest.slice(1)}`, "note"));
      return group;
    }));
    return;
  }
  $("formulas-title").textContent = "What this phase computed";
  $("formulas-lead").textContent = PHASE_TEXTS[training.phase];
  $("formulas").replaceChildren(...formulasOf(training).map(({ title, lines }) => {
    const group = make("section");
    group.append(make("h3", title));
    const list = make("dl", undefined, "computed");
    for (const [formula, numbers, result] of lines) {
      const line = make("div");
      const value = make("dd", numbers ? `= ${numbers} ` : "");
      value.append(make("b", `= ${result}`));
      line.append(make("dt", formula), value);
      list.append(line);
    }
    group.append(list);
    return group;
  }));
}
