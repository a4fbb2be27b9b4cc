// The article's network for XOR and its training, in plain JavaScript: the same layers, loss and steps as
// model_store/nn and training, for one row at a time. A test holds each parameter of both equal.
//
// Each layer remembers the numbers of its last forward and backward pass, so that a page can show them.

// The random numbers from 0 to 1 of a seed: mulberry32, a counter whose bits are mixed.
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Standard normal numbers of a seed; Box & Muller 1958.
export function normal(seed) {
  const draw = uniform(seed);
  return () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

// y_j = Σ_i w_ji x_i + b_j
export class Linear {
  constructor(inputSize, outputSize, draw) {
    this.weights = Array.from({ length: outputSize }, () => Array.from({ length: inputSize }, draw));
    this.bias = Array.from({ length: outputSize }, draw);
    this.zeroGradients();
  }

  zeroGradients() {
    this.weightsGrad = this.weights.map((row) => row.map(() => 0));
    this.biasGrad = this.bias.map(() => 0);
  }

  evaluate(x) {
    return this.weights.map((row, j) => sum(row.map((w, i) => w * x[i])) + this.bias[j]);
  }

  forward(x) {
    this.inputs = x;
    this.outputs = this.evaluate(x);
    return this.outputs;
  }

  // ∂E/∂w_ji += ∂E/∂y_j x_i, ∂E/∂b_j += ∂E/∂y_j; return ∂E/∂x_i = Σ_j ∂E/∂y_j w_ji
  backward(outputGrad) {
    this.outputGrad = outputGrad;
    outputGrad.forEach((dy, j) => {
      this.inputs.forEach((x, i) => { this.weightsGrad[j][i] += dy * x; });
      this.biasGrad[j] += dy;
    });
    this.inputGrad = this.inputs.map((_, i) => sum(outputGrad.map((dy, j) => dy * this.weights[j][i])));
    return this.inputGrad;
  }

  // w ← w - α ∂E/∂w
  update(rate) {
    this.weights = this.weights.map((row, j) => row.map((w, i) => w - rate * this.weightsGrad[j][i]));
    this.bias = this.bias.map((b, j) => b - rate * this.biasGrad[j]);
  }
}

// y_j = tanh x_j
export class Tanh {
  evaluate(x) {
    return x.map(Math.tanh);
  }

  forward(x) {
    this.inputs = x;
    this.outputs = this.evaluate(x);
    return this.outputs;
  }

  // ∂E/∂x_j = ∂E/∂y_j (1 - tanh² x_j)
  backward(outputGrad) {
    this.outputGrad = outputGrad;
    this.inputGrad = outputGrad.map((dy, j) => dy * (1 - this.outputs[j] ** 2));
    return this.inputGrad;
  }

  zeroGradients() {}

  update() {}
}

// E = 1/n Σ_j (y*_j - y_j)²
export const loss = (target, y) => sum(y.map((value, j) => (target[j] - value) ** 2)) / y.length;

// ∂E/∂y_j = 2/n (y_j - y*_j)
export const lossPrime = (target, y) => y.map((value, j) => (2 * (value - target[j])) / y.length);

// The four rows of XOR in their order, [inputs, target].
export const ROWS = [[[0, 0], [0]], [[0, 1], [1]], [[1, 0], [1]], [[1, 1], [0]]];

// Stochastic gradient descent on XOR, one row a step, in four phases that `advance` runs one after another.
export class Training {
  static PHASES = ["forward", "loss", "backward", "update"];

  constructor(seed, hidden = 3) {
    const draw = normal(seed);
    this.modules = [new Linear(2, hidden, draw), new Tanh(), new Linear(hidden, 1, draw), new Tanh()];
    this.step = 0; // the number of finished steps, so of updates
    this.phase = null; // the phase that ran last
    this.epochLosses = []; // the losses of the rows of this epoch, each measured before its update
    this.errors = []; // the mean loss of each finished epoch
    this.untrained = sum(ROWS.map(([x, target]) => loss(target, this.evaluate(x)))) / ROWS.length;
  }

  // Of the step that runs, or ran last.
  get row() {
    return ROWS[this.phase === "update" ? (this.step - 1) % ROWS.length : this.step % ROWS.length];
  }

  evaluate(x) {
    return this.modules.reduce((value, module) => module.evaluate(value), x);
  }

  // Run the next phase of a step. The learning rate is that of its update.
  advance(rate) {
    const next = (Training.PHASES.indexOf(this.phase) + 1) % Training.PHASES.length;
    this.phase = Training.PHASES[next];
    this[this.phase](rate);
  }

  // Run all phases of a step, or the rest of one.
  finishStep(rate) {
    do this.advance(rate); while (this.phase !== "update");
  }

  forward() {
    const [x] = this.row;
    this.output = this.modules.reduce((value, module) => module.forward(value), x);
  }

  loss() {
    this.error = loss(this.row[1], this.output);
    this.epochLosses.push(this.error);
  }

  backward() {
    this.modules.forEach((module) => module.zeroGradients());
    this.outputGrad = lossPrime(this.row[1], this.output);
    this.modules.reduceRight((grad, module) => module.backward(grad), this.outputGrad);
  }

  update(rate) {
    this.before = [this.modules[0], this.modules[2]].map(({ weights, bias }) => ({ weights, bias }));
    this.modules.forEach((module) => module.update(rate));
    this.rate = rate;
    this.step += 1;
    if (this.epochLosses.length < ROWS.length) return;
    this.errors.push(sum(this.epochLosses) / ROWS.length);
    this.epochLosses = [];
  }
}
