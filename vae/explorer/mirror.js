"use strict";
// What is done in one run happens in the others: at the same code, or at the code of the same image.

const sameDimensions = (a, b) => a.z.length === b.z.length;
const sameShape = (a, b) => String(a.shape) === String(b.shape);
const sameClasses = (a, b) => String(a.run.classes) === String(b.run.classes);
const WAYS = { code: sameDimensions, image: sameShape }; // and which runs can go them

class Mirror {
  constructor(panels) {
    this.panels = panels;
    this.forget();
    this.mode = this.allows("code") ? "code" : "image"; // or "off"
    for (const panel of panels) panel.share = (what) => this.#pass(panel, what);
  }

  /** Whether any two runs can go this way. */
  allows(mode) {
    return this.panels.some((from) => this.panels.some((to) => from !== to && WAYS[mode](from, to)));
  }

  /** Codes of images by the latent that these are decoded from: one end of a line stays while the other moves. */
  forget() {
    this.known = new Map(this.panels.map((panel) => [panel, new WeakMap()]));
  }

  /** The chosen way, or the other one where two runs cannot go it. */
  #way(from, to) {
    const open = Object.keys(WAYS).filter((way) => WAYS[way](from, to));
    return this.mode === "off" ? undefined : open.find((way) => way === this.mode) ?? open[0];
  }

  #pass(from, what) {
    for (const to of this.panels) {
      const way = from === to ? undefined : this.#way(from, to);
      if (way) this[what](from, to, way);
    }
  }

  point(from, to, way) {
    to.follow({ z: this.#there(from, to, way, from.z) });
  }

  line(from, to, way) {
    const ends = from.line && Object.entries(from.line).map(([end, z]) => [end, this.#there(from, to, way, z)]);
    to.follow({ line: ends && Object.fromEntries(ends) });
  }

  label(from, to) {
    this.forget();
    if (sameClasses(from, to)) to.setLabel(from.label, false);
  }

  /** The drawing itself, and where it is encoded; a test image moves the point, too. */
  drawing(from, to, way) {
    if (!sameShape(from, to)) return;
    const { image, label } = from.drawing;
    to.drawing.receive(image, sameClasses(from, to) ? label : undefined, way === "code" ? from.encoded : null);
    if (label !== undefined) to.follow({ z: to.encoded.mean });
  }

  #there(from, to, way, z) {
    if (way === "code") return z;
    const known = this.known.get(to);
    if (!known.has(z)) known.set(z, to.model.encode(from.decode(z), to.label).mean);
    return known.get(z);
  }
}

/** Let buttons say how the other runs follow; closed are the ways that no two of them can go. Returns what goes on to the next. */
function addSwitch(group, mirror) {
  const buttons = [...group.querySelectorAll("button")];
  const set = (mode) => {
    mirror.mode = mode;
    buttons.forEach((button) => press(button, button.dataset.mode === mode));
  };
  for (const button of buttons) {
    const { mode } = button.dataset;
    button.disabled = mode in WAYS && !mirror.allows(mode);
    button.addEventListener("click", () => set(mode));
  }
  const open = buttons.filter((button) => !button.disabled).map((button) => button.dataset.mode);
  const dims = [...new Set(mirror.panels.map((panel) => panel.z.length))].join(" and ");
  const why = { code: ` (${dims} dimensions: by image only)`, image: " (images of other shapes: by code only)" };
  const closed = Object.keys(WAYS).filter((mode) => !open.includes(mode));
  if (closed.length === 1) group.querySelector("span").textContent += why[closed[0]];
  group.hidden = closed.length === 2;
  set(mirror.mode);
  return () => set(open[(open.indexOf(mirror.mode) + 1) % open.length]);
}
