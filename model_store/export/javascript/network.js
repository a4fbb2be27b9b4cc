// The network --------------------------------------------------------------------------------------------------------

/** Return the layers of a network as functions of one row; `arrays` yields their weights in the order of the file. */
function load(layers, arrays) {
  return layers.map(({ type, ...fields }) => {
    if (type === "Average") {
      const members = fields.members.map((member) => load(member, arrays));
      return (x) => {
        const total = members.map((member) => run(member, x)).reduce((sum, y) => sum.map((value, i) => round(value + y[i])));
        return total.map((value) => round(value / members.length));
      };
    }
    if (type in ACTIVATIONS) return (x) => x.map((value) => round(ACTIVATIONS[type](value, fields)));
    const own = {};
    for (const name of fields.arrays ?? []) own[name] = arrays.next().value;
    return (x) => LAYER_TYPES[type](x, { ...fields, ...own });
  });
}

const run = (layers, row) => layers.reduce((x, layer) => layer(x), row);

/** Φ(x), the distribution function of the standard normal distribution, to 1e-8. */
function normalCdf(x) {
  const a = Math.min(Math.abs(x), 40);
  const w = 1 / (a + 4.5);
  const tail = Math.exp(-0.5 * a * a) * w * NORMAL_TERMS.reduceRight((sum, term) => sum * (1 - 9 * w) + term, 0);
  return x > 0 ? 1 - tail : tail;
}

// Shepherd & Laframboise 1981, as powers of 1 - 9 / (|x| + 4.5).
const NORMAL_TERMS = [0.7632305334, -0.6402578548, 0.4464521911, -0.253139859, 0.1113864646, -0.03388262952, 0.004206676174, 0.001776400078, -0.0008836169483, -2.490893163e-05, 7.889599093e-05];

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const ACTIVATIONS = {
  Identity: (x) => x,
  Tanh: Math.tanh,
  Sigmoid: sigmoid,
  ReLU: (x) => Math.max(x, 0),
  LeakyReLU: (x, { slope }) => Math.max(x, slope * x),
  GELU: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  ExactGELU: (x) => x * normalCdf(x),
  SiLU: (x) => x * sigmoid(x),
  ELU: (x, { alpha }) => Math.max(x, 0) + alpha * Math.expm1(Math.min(x, 0)),
  Softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  SELU: (x) => 1.0507009873554805 * (Math.max(x, 0) + 1.6732632423543772 * Math.expm1(Math.min(x, 0))),
  Mish: (x) => {
    const n = Math.exp(Math.min(x, 20));
    return x * ((n * (n + 2)) / (n * (n + 2) + 2));
  },
  SmoothClip: (x) => x / Math.hypot(x / 3, 1),
  Exp: Math.exp,
};

const LAYER_TYPES = {
  /** `y = W x + b` */
  Linear(x, { weights, bias }) {
    return Array.from(bias, (start, i) => {
      let sum = 0;
      for (let j = 0; j < x.length; j++) sum += weights[i * x.length + j] * x[j];
      return round(sum + start);
    });
  },

  Softmax(x) {
    const largest = Math.max(...x);
    const powers = x.map((value) => round(Math.exp(value - largest)));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => round(power / total));
  },

  Dropout: (x) => x,
  Flatten: (x) => x,
  FeatureScale: (x, { scale }) => x.map((value, i) => round(value * scale[i])),
  Clip: (x, { low, high }) => x.map((value, i) => Math.min(Math.max(value, low[i]), high[i])),
  ConstantInputs: (x, { constant, values }) => x.map((value, i) => (constant[i] ? values[i] : value)),

  /** `y = x + α (f(x) - x)` */
  ParametricActivation(x, { activation, alpha }) {
    return x.map((value, i) => round(value + alpha[i] * (round(ACTIVATIONS[activation](value, { slope: 0.01, alpha: 1 })) - value)));
  },

  /** Running mean and variance, by feature or by channel of an image. */
  BatchNorm(x, { size, epsilon, scale, shift, running_mean, running_variance }) {
    return x.map((value, i) => {
      const k = i % size;
      return round(((value - running_mean[k]) * scale[k]) / Math.sqrt(running_variance[k] + epsilon) + shift[k]);
    });
  },

  /** Mean and variance of the features of the row, or of the channels of each pixel. */
  LayerNorm(x, { size, epsilon, scale, shift }) {
    const outputs = [];
    for (let start = 0; start < x.length; start += size) {
      const values = x.slice(start, start + size).map((value) => round(value - x[start]));
      const mean = values.reduce((sum, value) => sum + value, 0) / size;
      const centred = values.map((value) => round(value - mean));
      const variance = centred.reduce((sum, value) => sum + round(value * value), 0) / size;
      const sigma = Math.sqrt(round(variance) + epsilon);
      centred.forEach((value, k) => outputs.push(round((value / sigma) * scale[k] + shift[k])));
    }
    return outputs;
  },

  /** The other features, then a row of a table for each category. */
  Embedding(x, { positions, counts, size, weights }) {
    const outputs = x.filter((_, i) => !positions.includes(i));
    let first = 0;
    positions.forEach((position, k) => {
      const row = first + Math.max(0, Math.min(Math.round(x[position]), counts[k] - 1));
      for (let i = 0; i < size; i++) outputs.push(weights[row * size + i]);
      first += counts[k];
    });
    return outputs;
  },

  /** The other features, then `[cos(2π w x + b) V + c, x]` of each number x. */
  PeriodicEmbedding(x, { positions, waves, size, frequencies, phases, weights, bias }) {
    const outputs = x.filter((_, i) => !positions.includes(i));
    positions.forEach((position, n) => {
      const value = x[position];
      const cosines = Array.from({ length: waves }, (_, wave) => {
        const scaled = round(frequencies[n * waves + wave] * round(2 * Math.PI));
        return round(Math.cos(round(round(value * scaled) + phases[n * waves + wave])));
      });
      for (let i = 0; i < size - 1; i++) {
        const sum = cosines.reduce((total, cosine, wave) => total + cosine * weights[(n * waves + wave) * (size - 1) + i], 0);
        outputs.push(round(sum + bias[n * (size - 1) + i]));
      }
      outputs.push(value);
    });
    return outputs;
  },

  /** `y[i, j, f] = b[f] + Σ W[f, u, v, c] x[i·stride + u, j·stride + v, c]`, with a border of zeros. */
  Conv2D(x, { input_shape: [height, width, channels], filters, kernel, stride, padding, weights, bias }) {
    const [[high, wide], [down, across], [top, left, bottom, right]] = [each(kernel), each(stride), each(padding, 4)];
    const rows = Math.floor((height + top + bottom - high) / down) + 1;
    const columns = Math.floor((width + left + right - wide) / across) + 1;
    const outputs = new Array(rows * columns * filters);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        for (let f = 0; f < filters; f++) {
          let sum = 0;
          for (let u = 0; u < high; u++) {
            const row = i * down + u - top;
            if (row < 0 || row >= height) continue;
            for (let v = 0; v < wide; v++) {
              const column = j * across + v - left;
              if (column < 0 || column >= width) continue;
              const [pixel, weight] = [(row * width + column) * channels, ((f * high + u) * wide + v) * channels];
              for (let c = 0; c < channels; c++) sum += weights[weight + c] * x[pixel + c];
            }
          }
          outputs[(i * columns + j) * filters + f] = round(sum + bias[f]);
        }
      }
    }
    return outputs;
  },

  /** The largest value of each window, channel by channel. */
  MaxPool2D(x, layer) {
    return pooled(x, layer, (values) => values.reduce((largest, value) => Math.max(largest, value), -Infinity));
  },

  /** The mean of the pixels of the image in each window, or of all its pixels, those of the border as zeros. */
  AveragePool2D(x, layer) {
    const [high, wide] = each(layer.size);
    const count = (values) => (layer.include_padding ? high * wide : values.length);
    return pooled(x, layer, (values) => round(values.reduce((sum, value) => sum + value, 0) / count(values)));
  },

  /** `y[i] = x[index[i]]`. */
  Gather(x, { index }) {
    return Array.from(index, (place) => x[place]);
  },
};

/** Return a size for each of `count` axes or sides. */
function each(size, count = 2) {
  return typeof size === "number" ? new Array(count).fill(size) : size;
}

/** Return what `reduce` makes of the values of each window that lie in the image, channel by channel. */
function pooled(x, { input_shape: [height, width, channels], size, stride, padding = 0, dilation = 1 }, reduce) {
  const [[high, wide], [down, across], [below, beside]] = [each(size), each(stride), each(dilation)];
  const [top, left, bottom, right] = each(padding, 4);
  const outputs = [];
  for (let i = -top; i + below * (high - 1) < height + bottom; i += down) {
    for (let j = -left; j + beside * (wide - 1) < width + right; j += across) {
      for (let c = 0; c < channels; c++) {
        const values = [];
        for (let row = i; row <= i + below * (high - 1); row += below) {
          for (let column = j; column <= j + beside * (wide - 1); column += beside) {
            const isInside = row >= 0 && row < height && column >= 0 && column < width;
            if (isInside) values.push(x[(row * width + column) * channels + c]);
          }
        }
        outputs.push(reduce(values));
      }
    }
  }
  return outputs;
}

/** Yield the arrays of the file: base64 of little-endian numbers, in the order of the layers. */
function* decodeArrays({ data, sizes }) {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const value = new Uint8Array(128);
  [...digits].forEach((digit, i) => (value[digit.charCodeAt(0)] = i));
  const bytes = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, j = 0; i < data.length; i += 4) {
    const [a, b, c, d] = [0, 1, 2, 3].map((k) => value[data.charCodeAt(i + k)]);
    bytes[j++] = (a << 2) | (b >> 4);
    bytes[j++] = (b << 4) | (c >> 2);
    bytes[j++] = (c << 6) | d;
  }
  const Numbers = MODEL.dtype === "float32" ? Float32Array : Float64Array;
  let start = 0;
  for (const size of sizes) {
    yield new Numbers(bytes.buffer, start, size);
    start += size * Numbers.BYTES_PER_ELEMENT;
  }
}

// Outputs to predictions ---------------------------------------------------------------------------------------------

function decode(outputs, location) {
  const { kind, labels, names, offset, scale, threshold } = MODEL.output;
  let values = outputs;
  if (kind === "classes" && outputs.length === 1) values = [round(1 - outputs[0]), outputs[0]];
  if (kind === "values") values = outputs.map((output, i) => inverted(output * scale[i] + offset[i], i));
  if (!values.every(Number.isFinite)) throw new RowError(`${location}: the prediction is not finite; send smaller numbers`);
  if (kind === "values") return names.length === 1 ? values[0] : Object.fromEntries(names.map((name, i) => [name, values[i]]));
  const probabilities = Object.fromEntries(labels.map((label, i) => [String(label), values[i]]));
  if (kind === "labels") return { labels: labels.filter((_, i) => values[i] >= threshold), probabilities };
  if (typeof threshold === "number") return { label: labels[values[1] >= threshold ? 1 : 0], probabilities };
  return { label: labels[values.indexOf(Math.max(...values))], probabilities };
}

/** Return a target whose transform the network predicts: its logarithm, or its normal score. */
function inverted(t, target) {
  const transform = MODEL.output.transform;
  if (transform === null) return t;
  if (transform.kind === "log") return Math.exp(t);
  if (transform.kind === "log1p") return Math.max(Math.expm1(t), 0);
  const [scores, values] = [transform.scores, transform.values[target]];
  let i = 0;
  while (i < scores.length - 2 && scores[i + 1] <= t) i++;
  const share = Math.min(Math.max((t - scores[i]) / (scores[i + 1] - scores[i]), 0), 1);
  return share === 1 ? values[i + 1] : values[i] + share * (values[i + 1] - values[i]);
}

const LAYERS = load(MODEL.layers, decodeArrays(WEIGHTS));
