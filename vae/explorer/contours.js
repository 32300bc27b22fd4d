"use strict";
// Contours of a density of which only draws are known.

const CELLS = 56; // of the grid along each axis

/** Around the densest mass 1 − exp(−½ σ²) of points (x, y), for σ = 1, 2 and 3: each a list of short lines. */
function contours(points) {
  const axes = [0, 1].map((axis) => new KernelAxis(points.map((point) => point[axis])));
  const density = axes[1].at.map((_, j) =>
    axes[0].at.map((_, i) => {
      const [x, y] = [axes[0].kernels[i], axes[1].kernels[j]];
      let sum = 0;
      for (let n = 0; n < x.length; n++) sum += x[n] * y[n];
      return sum;
    }),
  );
  const falling = density.flat().sort((a, b) => b - a);
  const whole = falling.reduce((sum, value) => sum + value);
  return [1, 2, 3].map((sigmas) => {
    let left = whole * (1 - Math.exp(-0.5 * sigmas ** 2));
    const level = falling.find((value) => (left -= value) <= 0);
    return crossings(density, level).map((line) => line.map(([i, j]) => [axes[0].place(i), axes[1].place(j)]));
  });
}

/** A grid along one axis, with the Gaussian kernel of every point at each place, as wide as Scott's rule says. */
class KernelAxis {
  constructor(values) {
    const mean = values.reduce((sum, value) => sum + value) / values.length;
    const scale = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
    const width = scale * values.length ** (-1 / 6);
    const [low, high] = [Math.min, Math.max].map((end) => values.reduce((most, value) => end(most, value)));
    this.low = low - 3 * width;
    this.step = (high - low + 6 * width) / CELLS;
    this.at = Array.from({ length: CELLS + 1 }, (_, i) => this.place(i));
    this.kernels = this.at.map((at) => Float64Array.from(values, (value) => Math.exp(-0.5 * ((value - at) / width) ** 2)));
  }

  place(i) {
    return this.low + i * this.step;
  }
}

/** Lines through the cells of a grid in which it crosses a level, in its indices. */
function crossings(rows, level) {
  const lines = [];
  for (let j = 0; j + 1 < rows.length; j++)
    for (let i = 0; i + 1 < rows[j].length; i++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const found = corners.flatMap((from, k) => {
        const to = corners[(k + 1) % 4];
        const [a, b] = [from, to].map(([x, y]) => rows[y][x] - level);
        return a > 0 === b > 0 ? [] : [lerp(from, to, a / (a - b))];
      });
      for (let k = 0; k + 1 < found.length; k += 2) lines.push(found.slice(k, k + 2));
    }
  return lines;
}
