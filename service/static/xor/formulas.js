// The formulas of each phase of a training step of XOR, with the numbers that they just computed.

import { numeral } from "../svg.js";

export const PHASE_TEXTS = {
  forward: "Forward: each unit multiplies its inputs by its weights, adds its bias, and applies tanh. The outputs of one layer are the inputs of the next.",
  loss: "Loss: the squared distance from the output y to the target y* is the one number that training makes smaller.",
  backward: "Backward: from the loss to the first weights, the chain rule multiplies the derivative that comes from the next layer by the layer's own.",
  update: "Update: each parameter moves against its derivative by the learning rate α. Then the next row begins.",
};

const DIGITS = "₀₁₂₃₄₅₆₇₈₉";
const sub = (...indices) => indices.map((i) => DIGITS[i + 1]).join("");
const bracket = (value) => (value < 0 ? `(${numeral(value)})` : numeral(value));
const product = (...values) => values.map(bracket).join(" · ");
const plus = (value) => (value < 0 ? `− ${numeral(-value)}` : `+ ${numeral(value)}`);
const minus = (value) => (value < 0 ? `+ ${numeral(-value)}` : `− ${numeral(value)}`);
const each = (values, line) => values.map((value, j) => line(value, j));

// Return groups of lines: [formula, the numbers in it, result].
export function formulasOf(training) {
  return training.phase === null ? [] : GROUPS[training.phase](training);
}

const GROUPS = {
  forward({ modules: [first, hidden, last, output] }) {
    const x = first.inputs;
    return [
      {
        title: "Linear layer 1: z = W x + b",
        lines: each(first.outputs, (z, j) => [
          `z${sub(j)} = w${sub(j, 0)} x₁ + w${sub(j, 1)} x₂ + b${sub(j)}`,
          `${first.weights[j].map((w, i) => product(w, x[i])).join(" + ")} ${plus(first.bias[j])}`,
          numeral(z),
        ]),
      },
      {
        title: "Tanh layer: h = tanh z",
        lines: each(hidden.outputs, (h, j) => [`h${sub(j)} = tanh z${sub(j)}`, `tanh(${numeral(hidden.inputs[j])})`, numeral(h)]),
      },
      {
        title: "Linear layer 2: z = v · h + c",
        lines: [[
          "z = v₁ h₁ + v₂ h₂ + v₃ h₃ + c",
          `${last.weights[0].map((v, j) => product(v, last.inputs[j])).join(" + ")} ${plus(last.bias[0])}`,
          numeral(last.outputs[0]),
        ]],
      },
      { title: "Tanh layer: y = tanh z", lines: [["y = tanh z", `tanh(${numeral(output.inputs[0])})`, numeral(output.outputs[0])]] },
    ];
  },

  loss(training) {
    const [[target], [y]] = [training.row[1], training.output];
    return [{ title: "Mean squared error of one output", lines: [["E = (y* − y)²", `(${target} ${minus(y)})²`, numeral(training.error)]] }];
  },

  backward(training) {
    const [first, hidden, last, output] = training.modules;
    const [[target], [y], [dy], [dz]] = [training.row[1], training.output, training.outputGrad, output.inputGrad];
    return [
      { title: "Loss", lines: [["∂E/∂y = 2 (y − y*)", `2 · (${numeral(y)} − ${target})`, numeral(dy)]] },
      { title: "Tanh layer of the output", lines: [["∂E/∂z = ∂E/∂y (1 − y²)", `${bracket(dy)} · (1 − ${bracket(y)}²)`, numeral(dz)]] },
      {
        title: "Linear layer 2",
        lines: [
          ...each(last.weightsGrad[0], (g, j) => [`∂E/∂v${sub(j)} = ∂E/∂z h${sub(j)}`, product(dz, last.inputs[j]), numeral(g)]),
          ["∂E/∂c = ∂E/∂z", "", numeral(last.biasGrad[0])],
          ...each(last.inputGrad, (g, j) => [`∂E/∂h${sub(j)} = ∂E/∂z v${sub(j)}`, product(dz, last.weights[0][j]), numeral(g)]),
        ],
      },
      {
        title: "Tanh layer of the hidden units",
        lines: each(hidden.inputGrad, (g, j) => [
          `∂E/∂z${sub(j)} = ∂E/∂h${sub(j)} (1 − h${sub(j)}²)`,
          `${bracket(hidden.outputGrad[j])} · (1 − ${bracket(hidden.outputs[j])}²)`,
          numeral(g),
        ]),
      },
      {
        title: "Linear layer 1",
        lines: first.weightsGrad.flatMap((row, j) => [
          ...row.map((g, i) => [`∂E/∂w${sub(j, i)} = ∂E/∂z${sub(j)} x${sub(i)}`, product(first.outputGrad[j], first.inputs[i]), numeral(g)]),
          [`∂E/∂b${sub(j)} = ∂E/∂z${sub(j)}`, "", numeral(first.biasGrad[j])],
        ]),
      },
    ];
  },

  update(training) {
    const [first, , last] = training.modules;
    const [before1, before2] = training.before;
    const line = (name, old, gradient, now) => [
      `${name} ← ${name} − α ∂E/∂${name}`, `${numeral(old)} − ${training.rate} · ${bracket(gradient)}`, numeral(now),
    ];
    return [
      {
        title: "Linear layer 1",
        lines: first.weights.flatMap((row, j) => [
          ...row.map((w, i) => line(`w${sub(j, i)}`, before1.weights[j][i], first.weightsGrad[j][i], w)),
          line(`b${sub(j)}`, before1.bias[j], first.biasGrad[j], first.bias[j]),
        ]),
      },
      {
        title: "Linear layer 2",
        lines: [
          ...each(last.weights[0], (v, j) => line(`v${sub(j)}`, before2.weights[0][j], last.weightsGrad[0][j], v)),
          line("c", before2.bias[0], last.biasGrad[0], last.bias[0]),
        ],
      },
    ];
  },
};
