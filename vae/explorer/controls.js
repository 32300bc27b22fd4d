"use strict";
// What the pointer and the buttons of a panel do.

const CLICK = 5; // pixels of the plane that a click may slip

function listen(panel) {
  const canvas = panel.find(".marks");
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((pixels) => pixels / panel.plane.zoom);
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
      panel.drawLine({ from: panel.from, to: z });
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
    ".take": () => panel.drawing.take(),
  };
  for (const [selector, act] of Object.entries(buttons)) panel.find(selector).addEventListener("click", act);
  panel.element.querySelectorAll("[data-view]").forEach((button) => {
    button.addEventListener("click", () => panel.setView(button.dataset.view));
  });
}
