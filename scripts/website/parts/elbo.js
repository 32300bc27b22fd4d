"use strict";
// log p(x) = ELBO + KL(q ‖ p(z|x)), for a decoder z ↦ (z², 0.3 z) with noise 0.5 and the image x = (1.2, 0.5).

live.part("elbo", (element) => {
  const [TILT, NOISE, X, END, STEPS] = [0.3, 0.5, [1.2, 0.5], 4, 1601];
  const grid = range(-END, END, STEPS);
  const step = grid[1] - grid[0];
  const log = (x, mean, sigma) => -0.5 * ((x - mean) / sigma) ** 2 - Math.log(sigma * Math.sqrt(2 * Math.PI));
  const joint = grid.map((z) => log(z, 0, 1) + log(X[0], z * z, NOISE) + log(X[1], TILT * z, NOISE));
  const evidence = Math.log(joint.reduce((sum, value) => sum + step * Math.exp(value), 0));
  const posterior = joint.map((value) => Math.exp(value - evidence));
  const mode = [grid[posterior.indexOf(Math.max(...posterior))], Math.max(...posterior)];

  /** E_q[log p(x, z) − log q(z)]: all of it are moments of q. */
  function bound(mean, sigma) {
    const square = mean ** 2 + sigma ** 2; // E z²
    const fourth = mean ** 4 + 6 * mean ** 2 * sigma ** 2 + 3 * sigma ** 4; // E z⁴
    const apart = [X[0] ** 2 - 2 * X[0] * square + fourth, X[1] ** 2 - 2 * X[1] * TILT * mean + TILT ** 2 * square];
    const half = Math.log(2 * Math.PI) / 2;
    const joint = -square / 2 - half - (apart[0] + apart[1]) / (2 * NOISE ** 2) - 2 * (Math.log(NOISE) + half);
    return joint + 0.5 + half + Math.log(sigma);
  }

  const controls = new Controls(element, () => plot.later());
  const values = () => [controls.get("mean"), controls.get("sigma")];
  const top = () => Math.min(1.62, density(0, 0, values()[1]));
  const side = () => Math.min(1.4, density(values()[1], 0, values()[1]));
  const plot = new Plot(
    element.querySelector("canvas"),
    { x: [-2.6, 2.6], y: [-0.1, 1.75] },
    ({ colours }) => {
      const [mean, sigma] = values();
      plot.axis(0, "z");
      const truth = grid.map((z, i) => [z, posterior[i]]).filter(([z]) => Math.abs(z) <= 2.6);
      plot.area([[-2.6, 0], ...truth, [2.6, 0]], colours.quiet, 0.18);
      plot.line(truth, colours.ink);
      const q = range(-2.6, 2.6, 400).map((z) => [z, density(z, mean, sigma)]);
      plot.area([[-2.6, 0], ...q, [2.6, 0]], colours.accent, 0.18);
      plot.line(q, colours.accent);
      plot.label("p(z|x)", mode, colours.ink, { shift: [0, -14], bold: true });
      plot.label("q", [mean, top()], colours.accent, { shift: [22, -2], bold: true });
      plot.handle([mean, top()], colours.accent);
      plot.handle([mean + sigma, side()], colours.accent);
      const elbo = bound(mean, sigma);
      const told = { evidence, elbo, gap: evidence - elbo };
      for (const [name, value] of Object.entries(told))
        element.querySelector(`[data-told="${name}"]`).textContent = signed(value, 3);
    },
    [
      { at: () => [values()[0], top()], move: (x) => controls.set({ mean: x }) },
      {
        at: () => [values()[0] + values()[1], side()],
        move: (x) => controls.set({ sigma: x - values()[0] }),
      },
    ],
  );

  // Gradient ascent on the bound, a step a frame, until the sliders would move by less than a hundredth.
  let [mean, sigma, climbing] = [0, 1, false];
  function climb() {
    const [rate, most, h] = [0.02, 0.05, 1e-4];
    const up = [
      (bound(mean + h, sigma) - bound(mean - h, sigma)) / (2 * h),
      (bound(mean, sigma + h) - bound(mean, sigma - h)) / (2 * h),
    ];
    const pace = Math.min(rate, most / Math.hypot(...up)); // far out the slope is that of z⁴
    [mean, sigma] = [mean + pace * up[0], Math.max(0.08, sigma + pace * up[1])];
    controls.set({ mean, sigma });
    climbing = climbing && !plot.held && Math.hypot(...up) > 0.01;
    element.dataset.climbing = climbing;
    if (climbing) requestAnimationFrame(climb);
  }
  element.querySelector('[data-do="climb"]').addEventListener("click", () => {
    if (climbing) return;
    element.dataset.climbing = climbing = true;
    [mean, sigma] = values();
    if (mean === 0) mean = 0.01; // between the modes it would stand still
    climb();
  });
});
