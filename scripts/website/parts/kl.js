"use strict";
// KL(N(μ, S) ‖ N(0, Σ)) = ½ (tr Σ⁻¹S + μᵀ Σ⁻¹ μ − n + log |Σ| − log |S|), in two dimensions.

live.part("kl", (element) => {
  const controls = new Controls(element, () => plot.later());
  const get = (...names) => names.map((name) => controls.get(name));

  /** The covariance of two scales and a correlation, as [xx, xy, yy]. */
  const covariance = (a, b, rho) => [a * a, rho * a * b, b * b];
  const determinant = ([xx, xy, yy]) => xx * yy - xy * xy;

  function state() {
    const [m0, m1, s0, s1, tied, v0, v1, rho] = get("m0", "m1", "s0", "s1", "tied", "v0", "v1", "rho");
    return {
      mean: [m0, m1],
      q: covariance(s0, s1, tied ? rho : 0),
      p: covariance(Math.sqrt(v0), Math.sqrt(v1), rho),
    };
  }

  function parts({ mean: [x, y], q, p }) {
    const size = determinant(p);
    const [a, b, c] = [p[2] / size, -p[1] / size, p[0] / size]; // Σ⁻¹
    const trace = a * q[0] + 2 * b * q[1] + c * q[2];
    const distance = a * x * x + 2 * b * x * y + c * y * y;
    const volume = Math.log(size) - Math.log(determinant(q));
    return { trace, distance, volume, kl: (trace + distance - 2 + volume) / 2 };
  }

  /** Points around a mean at some σ, by the Cholesky factor. */
  function around([x, y], [xx, xy, yy], sigmas) {
    const a = Math.sqrt(xx);
    const [b, c] = [xy / a, Math.sqrt(Math.max(0, yy - (xy * xy) / xx))];
    return range(0, 2 * Math.PI, 91).map((t) => [
      x + sigmas * a * Math.cos(t),
      y + sigmas * (b * Math.cos(t) + c * Math.sin(t)),
    ]);
  }

  const handles = [
    { at: () => get("m0", "m1"), move: (x, y) => controls.set({ m0: x, m1: y }) },
    {
      at: () => [controls.get("m0") + controls.get("s0"), controls.get("m1")],
      move: (x) => controls.set({ s0: x - controls.get("m0") }),
    },
    {
      at: () => [controls.get("m0"), controls.get("m1") + controls.get("s1")],
      move: (_, y) => controls.set({ s1: y - controls.get("m1") }),
    },
  ];
  const plot = new Plot(
    element.querySelector("canvas"),
    { x: [-4, 4], y: [-4, 4], equal: true, margin: [8, 8, 8, 8] },
    ({ colours }) => {
      const now = state();
      plot.line([[-4, 0], [4, 0]], colours.edge, 1);
      plot.line([[0, -4], [0, 4]], colours.edge, 1);
      for (const sigmas of [1, 2, 3]) {
        const ring = around([0, 0], now.p, sigmas);
        plot.area(ring, colours.quiet, 0.09);
        plot.line(ring, colours.ink, 1.3);
      }
      plot.label("p(z)", around([0, 0], now.p, 3)[68], colours.ink, { shift: [0, 14], bold: true });
      for (const sigmas of [2, 1]) plot.area(around(now.mean, now.q, sigmas), colours.accent, 0.25);
      plot.line(around(now.mean, now.q, 1), colours.accent, 2);
      plot.label("q", now.mean, colours.accent, { shift: [-18, 12], bold: true });
      handles.forEach(({ at }) => plot.handle(at(), colours.accent));
      for (const [name, value] of Object.entries(parts(now)))
        element.querySelector(`[data-told="${name}"]`).textContent = signed(value);
    },
    handles,
  );

  const rho = 0.4 / Math.sqrt(0.5); // of Σ = [[1, 0.4], [0.4, 0.5]]
  const buttons = {
    isotropic: () => ({ v0: 1, v1: 1, rho: 0 }),
    correlated: () => ({ v0: 1, v1: 0.5, rho }),
    prior: () => ({ m0: 0, m1: 0, s0: Math.sqrt(controls.get("v0")), s1: Math.sqrt(controls.get("v1")), tied: true }),
  };
  for (const [name, values] of Object.entries(buttons))
    element.querySelector(`[data-do="${name}"]`).addEventListener("click", () => controls.set(values()));
});
