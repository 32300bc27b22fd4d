"use strict";
// The latent space as the page moves in it: coordinates, the prior, ellipses.

const add = (a, b) => a.map((value, i) => value + b[i]);
const lerp = (a, b, t) => a.map((value, i) => value + t * (b[i] - value));
const identity = (n) => matrix(n, (i, j) => Number(i === j));
const isIdentity = (rows) => rows.every((row, i) => row.every((value, j) => Math.abs(value - Number(i === j)) < 1e-9));

/** L x with L lower triangular, as rows. */
const times = (rows, x) => rows.map((row, i) => row.reduce((sum, value, j) => (j <= i ? sum + value * x[j] : sum), 0));

/** L⁻¹ y, row by row. */
function solve(rows, y) {
  const x = [];
  rows.forEach((row, i) => x.push((y[i] - x.reduce((sum, value, j) => sum + row[j] * value, 0)) / row[i]));
  return x;
}

/** The coordinates that the plane and the sliders show: c with z = m + L c; of z itself with m = 0 and L = I. */
class Frame {
  constructor(mean, factor, symbol) {
    this.mean = mean;
    this.factor = factor;
    this.symbol = symbol;
  }

  static plain(n) {
    return new Frame(new Array(n).fill(0), identity(n), "z");
  }

  static whitened({ mean, factor }) {
    return new Frame(mean, factor, "u");
  }

  to(z) {
    return solve(this.factor, z.map((value, i) => value - this.mean[i]));
  }

  from(c) {
    return add(this.mean, times(this.factor, c));
  }

  /** Σ of some of the coordinates, of a Gaussian whose covariance of z is L_q L_qᵀ. */
  covariance(posteriorFactor, dims) {
    const n = posteriorFactor.length;
    const columns = Array.from({ length: n }, (_, j) => solve(this.factor, posteriorFactor.map((row) => row[j])));
    return dims.map((a) => dims.map((b) => columns.reduce((sum, column) => sum + column[a] * column[b], 0)));
  }

  name(dim) {
    const digits = String(dim).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
    return this.symbol + digits;
  }
}

/** Points around m + k · L (cos t, sin t) with L Lᵀ = Σ (2 × 2). */
function ellipse([x, y], [[xx, xy], [, yy]], sigmas, points = 72) {
  const a = Math.sqrt(xx);
  const b = xy / a;
  const c = Math.sqrt(Math.max(0, yy - b * b));
  return Array.from({ length: points + 1 }, (_, i) => {
    const [cos, sin] = [Math.cos((2 * Math.PI * i) / points), Math.sin((2 * Math.PI * i) / points)];
    return [x + sigmas * a * cos, y + sigmas * (b * cos + c * sin)];
  });
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

/** p(z): a Gaussian that the page draws from itself, or any other of which draws were sent. */
class Prior {
  constructor({ mean, scale, factor, draws, outlines }) {
    this.mean = mean;
    this.scale = scale;
    this.factor = factor;
    this.draws = draws ? rowsOf(draws, mean.length) : null;
    this.sent = outlines; // {dims, lines} of a prior without a formula
    this.canBeWhitened = Boolean(factor) && mean.length > 1 && !isIdentity(factor);
  }

  sample() {
    if (this.draws) return this.draws[Math.floor(Math.random() * this.draws.length)];
    return add(this.mean, times(this.factor, this.mean.map(normal)));
  }

  /** Lines at 1, 2 and 3 σ in the plane of two coordinates of a frame; none of a single one. */
  outlines(frame, dims) {
    if (dims.length === 1) return [];
    if (this.factor) {
      const middle = frame.to(this.mean);
      const covariance = frame.covariance(this.factor, dims);
      return [1, 2, 3].map((sigmas) => [ellipse(dims.map((dim) => middle[dim]), covariance, sigmas)]);
    }
    if (String(dims) === String(this.sent.dims)) return this.sent.lines;
    return contours(this.draws.map((z) => dims.map((dim) => z[dim])));
  }
}

/** The value at x of a curve through points of rising coordinate. */
function interpolated(xs, ys, x) {
  const step = (xs[xs.length - 1] - xs[0]) / (xs.length - 1);
  const at = Math.min(Math.max((x - xs[0]) / step, 0), xs.length - 1.001);
  const left = Math.floor(at);
  return ys[left] + (at - left) * (ys[left + 1] - ys[left]);
}

/** Round numbers at a comfortable distance between two ends. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((multiple) => multiple * power >= rough) * power;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(6)));
}

const written = (value, digits = 2) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
