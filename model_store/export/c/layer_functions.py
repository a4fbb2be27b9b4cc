"""The functions of layers in C99, by name. `$F` is the suffix of functions and constants of type float."""

from __future__ import annotations

from collections.abc import Mapping

_FUNCTIONS: Mapping[str, str] = {
    "linear": """\
/* y = W x + b */
static void linear(const real *x, size_t inputs, real *y, size_t outputs, const real *weights, const real *bias) {
    for (size_t i = 0; i < outputs; i++) {
        real sum = 0;
        for (size_t j = 0; j < inputs; j++) sum += weights[i * inputs + j] * x[j];
        y[i] = sum + bias[i];
    }
}
""",
    "convolve": """\
/* y[i, j, f] = b[f] + the sum of W[f, u, v, c] x[i down + u - top, j across + v - left, c];
   window: height, width, down, across, top, left */
static void convolve(const real *x, size_t height, size_t width, size_t channels, real *y, size_t rows, size_t columns,
                     size_t filters, const size_t *window, const real *weights, const real *bias) {
    size_t high = window[0], wide = window[1], top = window[4], left = window[5];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            for (size_t f = 0; f < filters; f++) {
                real sum = 0;
                for (size_t u = 0; u < high; u++)
                    for (size_t v = 0; v < wide; v++) {
                        size_t row = i * window[2] + u, column = j * window[3] + v;
                        if (row < top || row >= top + height) continue;
                        if (column < left || column >= left + width) continue;
                        const real *pixel = x + ((row - top) * width + column - left) * channels;
                        const real *weight = weights + ((f * high + u) * wide + v) * channels;
                        for (size_t c = 0; c < channels; c++) sum += weight[c] * pixel[c];
                    }
                y[(i * columns + j) * filters + f] = sum + bias[f];
            }
}
""",
    "max_pool": """\
/* The largest value of each window that lies in the image, channel by channel;
   window: height, width, down, across, top, left, and the distances of its pixels down and across */
static void max_pool(const real *x, size_t height, size_t width, size_t channels, real *y, size_t rows, size_t columns,
                     const size_t *window) {
    size_t top = window[4], left = window[5];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            for (size_t c = 0; c < channels; c++) {
                real largest = -INFINITY;
                for (size_t u = 0; u < window[0]; u++)
                    for (size_t v = 0; v < window[1]; v++) {
                        size_t row = i * window[2] + u * window[6], column = j * window[3] + v * window[7];
                        if (row < top || row >= top + height) continue;
                        if (column < left || column >= left + width) continue;
                        real value = x[((row - top) * width + column - left) * channels + c];
                        if (value > largest || isnan(value)) largest = value;
                    }
                y[(i * columns + j) * channels + c] = largest;
            }
}
""",
    "average_pool": """\
/* The mean of the values of each window that lie in the image, channel by channel, or of `count` with a border of
   zeros if it is not 0; window as of max_pool */
static void average_pool(const real *x, size_t height, size_t width, size_t channels, real *y, size_t rows,
                         size_t columns, const size_t *window, size_t count) {
    size_t top = window[4], left = window[5];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            for (size_t c = 0; c < channels; c++) {
                real sum = 0;
                size_t found = 0;
                for (size_t u = 0; u < window[0]; u++)
                    for (size_t v = 0; v < window[1]; v++) {
                        size_t row = i * window[2] + u * window[6], column = j * window[3] + v * window[7];
                        if (row < top || row >= top + height) continue;
                        if (column < left || column >= left + width) continue;
                        sum += x[((row - top) * width + column - left) * channels + c];
                        found++;
                    }
                y[(i * columns + j) * channels + c] = sum / (real)(count ? count : found);
            }
}
""",
    "gather": """\
/* y[i] = x[index[i]] */
static void gather(const real *x, real *y, size_t size, const uint32_t *index) {
    for (size_t i = 0; i < size; i++) y[i] = x[index[i]];
}
""",
    "normalize_batch": """\
/* x = (x - mean) factor + shift, factor = scale / sqrt(variance + epsilon) */
static void normalize_batch(real *x, size_t count, size_t size, const real *mean, const real *factor,
                            const real *shift) {
    for (size_t i = 0; i < count; i++, x += size)
        for (size_t j = 0; j < size; j++) x[j] = (x[j] - mean[j]) * factor[j] + shift[j];
}
""",
    "normalize_layer": """\
/* x = (x - mean of x) / sqrt(variance of x + epsilon) scale + shift */
static void normalize_layer(real *x, size_t count, size_t size, real epsilon, const real *scale, const real *shift) {
    for (size_t i = 0; i < count; i++, x += size) {
        real first = x[0], mean = 0, variance = 0;
        for (size_t j = 0; j < size; j++) mean += (x[j] -= first) / (real)size;
        for (size_t j = 0; j < size; j++) variance += (x[j] - mean) * (x[j] - mean) / (real)size;
        variance = sqrt$F(variance + epsilon);
        for (size_t j = 0; j < size; j++) x[j] = (x[j] - mean) / variance * scale[j] + shift[j];
    }
}
""",
    "hold_constant": """\
/* x = value where the feature was constant in training */
static void hold_constant(real *x, size_t size, const unsigned char *constant, const real *values) {
    for (size_t i = 0; i < size; i++)
        if (constant[i]) x[i] = values[i];
}
""",
    "scale_features": """\
/* x = x scale */
static void scale_features(real *x, size_t size, const real *scale) {
    for (size_t i = 0; i < size; i++) x[i] *= scale[i];
}
""",
    "clip": """\
/* x = min(max(x, low), high) */
static void clip(real *x, size_t size, const real *low, const real *high) {
    for (size_t i = 0; i < size; i++) {
        if (x[i] < low[i]) x[i] = low[i];
        if (x[i] > high[i]) x[i] = high[i];
    }
}
""",
    "embed": """\
/* The other features, then a row of a table for the category at each of the positions. */
static void embed(const real *x, size_t inputs, real *y, size_t count, const uint32_t *positions,
                  const uint32_t *counts, size_t size, const real *weights) {
    size_t next = 0;
    for (size_t j = 0; j < inputs; j++) {
        if (next < count && positions[next] == j) next++;
        else *y++ = x[j];
    }
    for (size_t i = 0; i < count; i++) {
        real code = rint$F(x[positions[i]]), last = (real)(counts[i] - 1);
        if (!(code < last)) code = last;
        if (code < 0) code = 0;
        for (size_t j = 0; j < size; j++) *y++ = weights[(size_t)code * size + j];
        weights += counts[i] * size;
    }
}
""",
    "embed_periodic": """\
/* The other features, then cos(2 pi w x + b) V + c and x itself for the number x at each of the positions. */
static void embed_periodic(const real *x, size_t inputs, real *y, size_t count, const uint32_t *positions,
                           size_t waves, size_t size, const real *frequencies, const real *phases,
                           const real *weights, const real *bias) {
    size_t next = 0;
    for (size_t j = 0; j < inputs; j++) {
        if (next < count && positions[next] == j) next++;
        else *y++ = x[j];
    }
    for (size_t i = 0; i < count; i++, y += size) {
        real value = x[positions[i]];
        for (size_t j = 0; j + 1 < size; j++) y[j] = 0;
        for (size_t k = 0; k < waves; k++) {
            real wave = cos$F(value * frequencies[i * waves + k] + phases[i * waves + k]);
            for (size_t j = 0; j + 1 < size; j++) y[j] += wave * weights[(i * waves + k) * (size - 1) + j];
        }
        for (size_t j = 0; j + 1 < size; j++) y[j] += bias[i * (size - 1) + j];
        y[size - 1] = value;
    }
}
""",
    "softmax": """\
/* x = e^(x - max x) / the sum of them */
static void softmax(real *x, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++, x += size) {
        real largest = x[0], sum = 0;
        for (size_t j = 1; j < size; j++)
            if (x[j] > largest) largest = x[j];
        for (size_t j = 0; j < size; j++) sum += x[j] = exp$F(x[j] - largest);
        for (size_t j = 0; j < size; j++) x[j] /= sum;
    }
}
""",
    "activate": """\
static void activate(real *x, size_t size, real (*f)(real)) {
    for (size_t i = 0; i < size; i++) x[i] = f(x[i]);
}
""",
    "activate_in_part": """\
/* x = x + alpha (f(x) - x) */
static void activate_in_part(real *x, size_t size, real (*f)(real), const real *alpha) {
    for (size_t i = 0; i < size; i++) x[i] += alpha[i] * (f(x[i]) - x[i]);
}
""",
    "leaky_relu": """\
static void leaky_relu(real *x, size_t size, real slope) {
    for (size_t i = 0; i < size; i++)
        if (x[i] < 0) x[i] *= slope;
}
""",
    "elu": """\
static void elu(real *x, size_t size, real alpha) {
    for (size_t i = 0; i < size; i++)
        if (x[i] < 0) x[i] = alpha * expm1$F(x[i]);
}
""",
    "add": """\
static void add(real *sum, const real *x, size_t size) {
    for (size_t i = 0; i < size; i++) sum[i] += x[i];
}
""",
    "divide": """\
static void divide(real *x, size_t size, real by) {
    for (size_t i = 0; i < size; i++) x[i] /= by;
}
""",
}
# The element-wise activations by the name of their class.
_ACTIVATIONS: Mapping[str, str] = {
    "Identity": "x",
    "Tanh": "tanh$F(x)",
    "Sigmoid": "1 / (1 + exp$F(-x))",
    "ReLU": "x < 0 ? 0 : x",
    "LeakyReLU": "x < 0 ? 0.01$F * x : x",  # as ParametricActivation has it
    "GELU": "0.5$F * x * (1 + tanh$F(0.7978845608028654$F * (x + 0.044715$F * x * x * x)))",
    "ExactGELU": "0.5$F * x * erfc$F(-0.7071067811865476$F * x)",
    "SiLU": "x / (1 + exp$F(-x))",
    "ELU": "x > 0 ? x : expm1$F(x)",  # as ParametricActivation has it
    "Softplus": "(x > 0 ? x : 0) + log1p$F(exp$F(-fabs$F(x)))",
    "SELU": "1.0507009873554805$F * (x > 0 ? x : 1.6732632423543772$F * expm1$F(x))",
    "SmoothClip": "x * (1 / hypot$F(x / 3, 1))",
    "Exp": "exp$F(x)",
}
_MISH = """\
static real activation_Mish(real x) {
    real n = exp$F(x < 20 ? x : 20), p = n * (n + 2);
    return x * (p / (p + 2));
}
"""
LAYER_FUNCTIONS = {
    **_FUNCTIONS,
    **{
        f"activation_{name}": f"static real activation_{name}(real x) {{ return {body}; }}\n"
        for name, body in _ACTIVATIONS.items()
    },
    "activation_Mish": _MISH,
}
