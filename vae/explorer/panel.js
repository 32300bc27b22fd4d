"use strict";
// One run on the page: what can be done with it, and what is then shown.

const STRIP = 11; // images along a line
const SAMPLES = { columns: 10, rows: 3 };
const BAND_GAP = 14; // pixels of the plane between a strip of tiles and the axis above it
const BUDGET = 10; // milliseconds of a frame for tiles, and for images along a line

class Panel {
  constructor(run, element) {
    this.run = run;
    this.element = element;
    this.model = new Model(run.networks);
    this.prior = new Prior(run.prior);
    this.shape = run.networks.shape;
    this.codes = rowsOf(run.codes.means, run.names.length);
    this.z = [...run.prior.mean];
    this.label = 0;
    this.view = "points";
    this.line = null; // {from, to}
    this.samples = [];
    this.share = () => {}; // called with what a hand has done here: "point", "line", "drawing" or "label"
    this.plane = new Plane(this.find(".plane"), run, this.codes, this.prior);
    this.plane.set(Frame.plain(run.names.length));
    this.sheet = new Sheet(this.plane, this.shape);
    this.#write();
    this.drawing = new Drawing(this);
    this.peek = new Peek(this);
    listen(this);
    addMenus(this);
    writeAxes(this);
    new ResizeObserver(() => this.resize()).observe(this.find(".plane"));
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  get decode() {
    return (z) => this.model.decode(z, this.label);
  }

  get frame() {
    return this.plane.frame;
  }

  get pad() {
    return this.drawing.pad;
  }

  get encoded() {
    return this.drawing.encoded;
  }

  // What can be done -------------------------------------------------------------------------------------------------

  moveTo(z) {
    this.follow({ z });
    this.later("share point");
    if (this.drawingLine) this.drawLine({ from: this.line?.from ?? z, to: z });
  }

  drawLine(line) {
    this.follow({ line });
    this.later("share line");
  }

  /** Show a point or a line, as a hand in another panel has chosen it. */
  follow({ z = this.z, line = this.line }) {
    this.later(z !== this.z && "point", line !== this.line && "line", "overlay");
    this.z = z;
    this.line = line;
  }

  /** Move along the plane's axes, in tenths of the prior's scale. */
  step(across, up) {
    const c = this.frame.to(this.z);
    const [first, second] = this.plane.dims;
    const scale = (dim) => (this.frame.symbol === "u" ? 1 : this.prior.scale[dim]) / 10;
    c[first] += across * scale(first);
    if (second !== undefined) c[second] += up * scale(second);
    this.moveTo(this.frame.from(c));
  }

  setLabel(label, byHand = true) {
    if (!(label < this.model.classes)) return;
    this.label = label;
    this.element.querySelectorAll(".classes button").forEach((button, i) => press(button, i === label));
    this.drawing.encode();
    this.later("point", "line", "samples", "base");
    if (byHand) this.share("label");
  }

  setView(view) {
    this.view = view;
    this.element.querySelectorAll("[data-view]").forEach((button) => press(button, button.dataset.view === view));
    this.#layOut();
    this.later("sheet", "base");
  }

  /** Switch between the latents and the coordinates in which the prior is N(0, I). */
  whiten() {
    if (!this.prior.canBeWhitened) return;
    const whitened = this.frame.symbol === "u";
    press(this.find(".whiten"), !whitened);
    this.#setPlane(whitened ? Frame.plain(this.z.length) : Frame.whitened(this.prior), this.plane.dims);
  }

  /** Let two dimensions span the plane, the first one horizontally. */
  span(dims) {
    this.#setPlane(this.frame, dims);
  }

  #setPlane(frame, dims) {
    this.plane.set(frame, dims);
    writeAxes(this);
    this.drawing.write();
    this.later("point", "base", "sheet");
  }

  /** Begin a line at the point, or end the one that is being drawn. */
  toggleLine() {
    this.drawingLine = !this.drawingLine;
    press(this.find(".line"), this.drawingLine);
    if (this.drawingLine) this.drawLine({ from: this.z, to: this.z });
  }

  removeLine() {
    if (this.drawingLine) this.toggleLine();
    this.samples = [];
    this.later("samples");
    this.drawLine(null);
  }

  drawSamples() {
    this.samples = Array.from({ length: SAMPLES.columns * SAMPLES.rows }, () => this.prior.sample());
    this.later("samples", "overlay");
  }

  resize() {
    this.plane.resize();
    this.#layOut();
    this.later("base", "sheet", "point");
  }

  #layOut() {
    this.plane.setBand(this.view === "sheet" ? this.sheet.tiles.height + BAND_GAP : 0);
  }

  // What is shown ----------------------------------------------------------------------------------------------------

  later(...parts) {
    this.due ??= new Set();
    parts.filter(Boolean).forEach((part) => this.due.add(part));
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.#frame());
  }

  #frame() {
    this.waiting = false;
    if (!this.plane.width) return; // until `resize` comes
    const due = this.due;
    this.due = new Set();
    for (const part of ["point", "line"]) if (due.has(`share ${part}`)) this.share(part);
    if (due.has("point")) this.#showPoint();
    if (due.has("line") || due.has("more of line")) this.#showLine(due.has("line"));
    if (due.has("samples")) this.#showSamples();
    if (this.view === "sheet") {
      const shown = this.#behindSheet();
      if (due.has("sheet") || shown !== this.shownSheet) this.sheet.start(this.z);
      this.shownSheet = shown;
      if (this.sheet.waiting.length) {
        this.sheet.goOn(this.decode, BUDGET);
        due.add("base");
        this.later("tiles");
      }
    }
    if (due.has("base")) {
      this.plane.drawBase(this.view === "sheet" ? this.sheet.canvas : null, this.model.classes ? this.label : null);
    }
    drawMarks(this.plane, this);
  }

  /** What all tiles have in common: the class, and the dimensions that the plane does not show. */
  #behindSheet() {
    const rest = this.frame.to(this.z).filter((_, dim) => !this.plane.dims.includes(dim));
    return [this.label, ...rest.map((value) => Math.round(value * 1e6))].join(); // coordinates change in the last digit
  }

  #showPoint() {
    const image = this.decode(this.z);
    showImages(this.find(".decoded canvas"), [image], this.shape);
    this.peek.show(image, this.shape);
    const c = this.frame.to(this.z);
    const parts = this.plane.dims.map((dim) => `${this.frame.name(dim)} = ${written(c[dim])}`);
    this.find(".decoded .where").textContent = parts.join("\n");
    moveSliders(this, c);
  }

  /** Decode images along the line in turn, as many as a frame has time for. */
  #showLine(changed) {
    this.find(".strip").classList.toggle("empty", !this.line);
    if (!this.line) return;
    const strip = (this.strip ??= { images: Array(STRIP).fill(new Float32Array(this.pad.image.length)), next: 0 });
    if (changed) strip.stale = STRIP;
    const { from, to } = this.line;
    for (const until = performance.now() + BUDGET; strip.stale && performance.now() < until; strip.stale--) {
      strip.images[strip.next] = this.decode(lerp(from, to, strip.next / (STRIP - 1)));
      strip.next = (strip.next + 1) % STRIP;
    }
    showImages(this.find(".strip canvas"), strip.images, this.shape, STRIP, 1);
    if (strip.stale) this.later("more of line");
  }

  #showSamples() {
    this.find(".samples").classList.toggle("empty", !this.samples.length);
    if (this.samples.length) {
      showImages(this.find(".samples canvas"), this.samples.map(this.decode), this.shape, SAMPLES.columns, 1);
    }
  }

  #write() {
    this.find(".name").textContent = this.run.name;
    this.find(".note").textContent = this.run.note;
    this.find(".marks").setAttribute("aria-label", `Latent space of ${this.run.name}`);
    this.find(".whiten").hidden = !this.prior.canBeWhitened;
    this.find(".classes").hidden = !this.model.classes;
    const buttons = this.run.classes.slice(0, this.model.classes).map((name, label) => {
      const button = document.createElement("button");
      button.textContent = name;
      button.style.setProperty("--class", this.run.colours[label]);
      press(button, label === this.label);
      button.addEventListener("click", () => this.setLabel(label));
      return button;
    });
    this.find(".classes div").append(...buttons);
    const [, height, width] = this.shape;
    this.element.style.setProperty("--aspect", width / height);
  }
}

function press(button, pressed) {
  button.setAttribute("aria-pressed", String(Boolean(pressed)));
}
