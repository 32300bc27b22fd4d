"use strict";
// z = μ + σ ε: ε is drawn, and z moves with μ and σ.

live.part("reparameterisation", (element) => {
  const [DRAWS, GOAL, RATE] = [24, 1, 0.12];
  const [ABOVE, BELOW] = [2.2, 0]; // heights of the two axes
  const loss = (z) => (z - GOAL) ** 2;
  const slope = (z) => 2 * (z - GOAL);
  const told = (name) => element.querySelector(`[data-told="${name}"]`);
  const { normal } = draws(1271); // "New draws" goes on from here
  let noise = Array.from({ length: DRAWS }, normal);
  let chosen = 0;

  const controls = new Controls(element, () => plot.later());
  const values = () => [controls.get("mean"), controls.get("sigma")];
  const gradients = (some) => {
    const [mean, sigma] = values();
    const slopes = some.map((e) => slope(mean + sigma * e));
    return [average(slopes), average(slopes.map((each, i) => each * some[i]))];
  };
  const plot = new Plot(
    element.querySelector("canvas"),
    { x: [-4, 4], y: [-1.1, 3.6] },
    ({ colours }) => {
      const [mean, sigma] = values();
      plot.axis(ABOVE, "ε");
      plot.axis(BELOW, "z");
      plot.line(range(-4, 4, 161).map((x) => [x, ABOVE + 2.4 * density(x, 0, 1)]), colours.quiet);
      const curve = range(-4, 4, 321).map((x) => [x, BELOW + Math.min(1.7, 1.2 * density(x, mean, sigma))]);
      plot.area([[-4, BELOW], ...curve, [4, BELOW]], colours.accent, 0.15);
      plot.line(curve, colours.accent);
      noise.forEach((e, i) => {
        const [from, to] = [[e, ABOVE], [mean + sigma * e, BELOW]];
        plot.line([from, to], i === chosen ? colours.mark : colours.edge, i === chosen ? 2.5 : 1);
        for (const end of [from, to]) plot.dot(end, i === chosen ? colours.mark : colours.quiet, i === chosen ? 6 : 4);
      });
      plot.line([[GOAL, BELOW - 0.15], [GOAL, BELOW + 0.15]], colours.ink, 3);
      plot.label("goal", [GOAL, BELOW], colours.ink, { shift: [0, -16] });
      const [forMean, forSigma] = gradients(noise);
      plot.arrow([mean, -0.55], [mean - RATE * 3 * forMean, -0.55], colours.accent);
      plot.arrow([mean + sigma, -0.9], [mean + sigma - RATE * 3 * forSigma, -0.9], colours.accent);
      plot.handle([mean, -0.55], colours.accent);
      plot.label("μ", [mean, -0.55], colours.accent, { shift: [-18, 0], bold: true });
      plot.handle([mean + sigma, -0.9], colours.accent);
      plot.label("μ + σ", [mean + sigma, -0.9], colours.accent, { align: "left", shift: [15, 0], bold: true });
      write();
    },
    [
      { at: () => [values()[0], -0.55], move: (x) => controls.set({ mean: x }) },
      { at: () => [values()[0] + values()[1], -0.9], move: (x) => controls.set({ sigma: x - values()[0] }) },
    ],
  );

  function write() {
    const [mean, sigma] = values();
    const e = noise[chosen];
    const z = mean + sigma * e;
    told("one").textContent = `of the red draw: ε = ${signed(e)}, z = ${signed(z)}, loss ${signed(loss(z))}`;
    for (const [name, pair] of [["one-", gradients([e])], ["", gradients(noise)], ["exact-", [slope(mean), 2 * sigma]]])
      ["mean", "sigma"].forEach((of, i) => (told(name + of).textContent = signed(pair[i])));
  }

  // The draw under the pointer is the one that is told of.
  plot.canvas.addEventListener("pointermove", (event) => {
    const box = plot.canvas.getBoundingClientRect();
    const [x, y] = plot.fromPixel(event.clientX - box.left, event.clientY - box.top);
    if (plot.held || y < -0.3) return;
    const [mean, sigma] = values();
    const part = Math.min(1, Math.max(0, (y - BELOW) / (ABOVE - BELOW))); // along the lines between the axes
    const at = noise.map((e) => Math.abs(part * e + (1 - part) * (mean + sigma * e) - x));
    chosen = at.indexOf(Math.min(...at));
    plot.later();
  });
  element.querySelector('[data-do="step"]').addEventListener("click", () => {
    const [mean, sigma] = values();
    const [forMean, forSigma] = gradients(noise);
    controls.set({ mean: mean - RATE * forMean, sigma: sigma - RATE * forSigma });
  });
  element.querySelector('[data-do="draw"]').addEventListener("click", () => {
    noise = Array.from({ length: DRAWS }, normal);
    plot.later();
  });
});
