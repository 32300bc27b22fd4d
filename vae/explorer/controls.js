"use strict";
// What the pointer, the buttons and the sliders of a panel do.

const CLICK = 5; // CSS pixels that a click may slip

/** One for each dimension that the plane does not show. */
function addSliders(panel) {
  const rest = panel.run.names.map((_, dim) => dim).filter((dim) => !panel.run.dims.includes(dim));
  const at = panel.codes.map((z) => panel.frame.to(z));
  panel.find(".sliders").replaceChildren(
    ...rest.map((dim) => {
      const scale = panel.frame.symbol === "u" ? 1 : panel.prior.scale[dim];
      const middle = panel.frame.symbol === "u" ? 0 : panel.prior.mean[dim];
      const low = at.reduce((least, c) => Math.min(least, c[dim]), middle - 3 * scale);
      const high = at.reduce((most, c) => Math.max(most, c[dim]), middle + 3 * scale);
      const label = document.createElement("label");
      label.innerHTML = `<span></span><input type="range" step="any"><output></output>`;
      label.firstChild.textContent = panel.frame.name(dim);
      const slider = label.children[1];
      Object.assign(slider, { min: low, max: high, value: panel.frame.to(panel.z)[dim] });
      slider.dataset.dim = dim;
      slider.addEventListener("input", () => {
        const c = panel.frame.to(panel.z);
        c[dim] = Number(slider.value);
        panel.moveTo(panel.frame.from(c));
      });
      return label;
    }),
  );
}

function listen(panel) {
  const canvas = panel.find(".overlay");
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let start = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    start = at(event);
    const drags = event.pointerType === "mouse" || panel.drawingLine;
    panel.from = drags ? panel.plane.latentAt(start, panel.z) : null;
    panel.moveTo(panel.plane.latentAt(start, panel.z));
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event);
    const z = panel.plane.latentAt(now, panel.z);
    if (start && panel.from && Math.hypot(now[0] - start[0], now[1] - start[1]) > CLICK) {
      panel.line = { from: panel.from, to: z };
      panel.later("line");
    }
    panel.moveTo(z);
  });
  canvas.addEventListener("pointerup", (event) => {
    const now = at(event);
    const clicked = start && Math.hypot(now[0] - start[0], now[1] - start[1]) <= CLICK;
    const code = clicked ? panel.plane.codeAt(now) : null;
    if (code) panel.moveTo(code);
    if (panel.drawingLine) panel.toggleLine();
    start = null;
  });
  canvas.addEventListener("pointercancel", () => (start = null));
  panel.find(".samples canvas").addEventListener("click", (event) => {
    const column = Math.floor((event.offsetX / event.target.clientWidth) * SAMPLES.columns);
    const row = Math.floor((event.offsetY / event.target.clientHeight) * SAMPLES.rows);
    panel.moveTo(panel.samples[row * SAMPLES.columns + column]);
  });
  const buttons = {
    ".line": () => panel.toggleLine(),
    ".whiten": () => panel.whiten(),
    ".sample": () => panel.drawSamples(),
    ".clear": () => panel.pad.clear(),
    ".centre": () => panel.pad.centre(),
    ".take": () => panel.takeImage(),
  };
  for (const [selector, act] of Object.entries(buttons)) panel.find(selector).addEventListener("click", act);
  panel.element.querySelectorAll("[data-view]").forEach((button) => {
    button.addEventListener("click", () => panel.setView(button.dataset.view));
  });
}
