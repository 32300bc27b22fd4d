"use strict";
// The trained networks: one image or one latent at a time, in plain arrays, as vae/explorer/networks.py lists them.

/** y = W x + b. */
function linear({ weight, bias }, x) {
  const inputs = x.length;
  const y = new Float32Array(bias.length);
  for (let row = 0, at = 0; row < y.length; row++) {
    let sum = bias[row];
    for (let column = 0; column < inputs; column++, at++) sum += weight[at] * x[column];
    y[row] = sum;
  }
  return y;
}

/** Where each tap of the kernel takes each input along one axis: table[input][tap], −1 for nowhere. */
function reached({ kernel, stride, padding, transposed }, axis, inputs, outputs) {
  const table = [];
  for (let input = 0; input < inputs; input++) {
    table.push([]);
    for (let tap = 0; tap < kernel[axis]; tap++) {
      const output = transposed
        ? input * stride[axis] - padding[axis] + tap
        : (input + padding[axis] - tap) / stride[axis];
      table[input].push(Number.isInteger(output) && output >= 0 && output < outputs ? output : -1);
    }
  }
  return table;
}

function outputSize({ kernel, stride, padding, output_padding, transposed }, axis, size) {
  return transposed
    ? (size - 1) * stride[axis] - 2 * padding[axis] + kernel[axis] + output_padding[axis]
    : Math.floor((size + 2 * padding[axis] - kernel[axis]) / stride[axis]) + 1;
}

/** A convolution or its transpose: every input adds to the outputs that it reaches. Zeros, which ReLU leaves, do not. */
function convolution(operation, { data, shape: [channels, height, width] }) {
  const { weight, bias, outputs, kernel } = operation;
  const [rows, columns] = [outputSize(operation, 0, height), outputSize(operation, 1, width)];
  const [down, across] = [reached(operation, 0, height, rows), reached(operation, 1, width, columns)];
  const sums = new Float32Array(rows * columns * outputs); // channels last: the innermost loop runs along memory
  for (let channel = 0, at = 0; channel < channels; channel++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++, at++) {
        const value = data[at];
        if (value === 0) continue;
        for (let i = 0; i < kernel[0]; i++) {
          if (down[y][i] < 0) continue;
          for (let j = 0; j < kernel[1]; j++) {
            if (across[x][j] < 0) continue;
            const from = ((channel * kernel[0] + i) * kernel[1] + j) * outputs;
            const to = (down[y][i] * columns + across[x][j]) * outputs;
            for (let k = 0; k < outputs; k++) sums[to + k] += value * weight[from + k];
          }
        }
      }
  const result = new Float32Array(sums.length);
  const size = rows * columns;
  for (let k = 0, at = 0; k < outputs; k++)
    for (let pixel = 0; pixel < size; pixel++, at++) result[at] = sums[pixel * outputs + k] + bias[k];
  return { data: result, shape: [outputs, rows, columns] };
}

const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

/** a ⊙ σ(b) of the two halves of the numbers. */
function gate(numbers) {
  const half = numbers.length / 2;
  return numbers.slice(0, half).map((value, i) => value * sigmoid(numbers[half + i]));
}

const OPERATIONS = {
  linear: (operation, x) => ({ data: linear(operation, x.data), shape: [operation.bias.length] }),
  convolution,
  relu: (_, x) => ({ data: x.data.map((value) => Math.max(0, value)), shape: x.shape }),
  gate: (_, { data }) => ({ data: gate(data), shape: [data.length / 2] }),
  reshape: ({ shape }, x) => ({ data: x.data, shape: shape ?? [x.data.length] }),
};

function apply(operations, x) {
  return operations.reduce((value, operation) => OPERATIONS[operation.op](operation, value), x);
}

/** ½ (1 + coth u − 1/u) with u half the logit: the mean of a density ∝ exp(logit · x) on [0, 1]. */
function continuousBernoulli(logit) {
  const u = logit / 2;
  return 0.5 * (1 + (Math.abs(u) < 0.05 ? u / 3 - u ** 3 / 45 : 1 / Math.tanh(u) - 1 / u));
}

const MEANS = { sigmoid, continuous_bernoulli: continuousBernoulli };

/** A trained model: images and means of images are Float32Arrays by channel, row and column, latents plain arrays. */
class Model {
  constructor({ shape, classes, beside, encoder, decoder, posterior, likelihood }) {
    this.shape = shape;
    this.classes = classes;
    this.beside = beside;
    this.encoder = encoder;
    this.decoder = decoder;
    this.posterior = posterior;
    this.mean = MEANS[likelihood];
  }

  /** q(z|x): its mean and the rows of a lower triangular factor L of its covariance L Lᵀ. */
  encode(image, label) {
    const features = apply(this.encoder, this.#withClass(image, label)).data;
    const mean = Array.from(linear(this.posterior.mean, features));
    const numbers = linear(this.posterior.scale, features);
    return { mean, factor: FACTORS[this.posterior.kind](numbers, mean.length, this.posterior.factor) };
  }

  /** E[x|z]. */
  decode(z, label) {
    const latent = this.classes ? [...z, ...this.#oneHot(label)] : z;
    const { data } = apply(this.decoder, { data: Float32Array.from(latent), shape: [latent.length] });
    return data.map(this.mean);
  }

  #oneHot(label) {
    return Array.from({ length: this.classes }, (_, i) => Number(i === label));
  }

  #withClass(image, label) {
    if (!this.classes) return { data: image, shape: this.shape };
    const [channels, height, width] = this.shape;
    const each = this.beside === "planes" ? height * width : 1;
    const data = new Float32Array(image.length + this.classes * each);
    data.set(image);
    data.fill(1, image.length + label * each, image.length + (label + 1) * each);
    return { data, shape: this.beside === "planes" ? [channels + this.classes, height, width] : [data.length] };
  }
}

const matrix = (n, entry) =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => (j <= i ? entry(i, j) : 0)));

const FACTORS = {
  diagonal: (logVariance, n) => matrix(n, (i, j) => (i === j ? Math.exp(0.5 * logVariance[i]) : 0)),
  tied: (logVariance, n, factor) => matrix(n, (i, j) => Math.exp(0.5 * logVariance[i]) * factor[i][j]),
  // The logarithms of the diagonal, then the rows below it.
  full: (free, n) => matrix(n, (i, j) => (i === j ? Math.exp(free[i]) : free[n + (i * (i - 1)) / 2 + j])),
};
