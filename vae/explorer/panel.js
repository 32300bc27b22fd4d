"use strict";
// One run on the page: what can be done with it, and what is then shown.

const STRIP = 11; // images along a line
const SAMPLES = { columns: 10, rows: 3 };
const BAND_GAP = 14; // CSS pixels between a strip of tiles and the axis above it
const BUDGET = 10; // milliseconds of a frame for tiles, and for images along a line

class Panel {
  constructor(run, element) {
    this.run = run;
    this.element = element;
    this.model = new Model(run.networks);
    this.prior = new Prior(run.prior);
    this.shape = run.networks.shape;
    this.codes = rowsOf(floats(run.codes.means, 3), run.names.length);
    this.z = [...run.prior.mean];
    this.label = 0;
    this.view = "points";
    this.line = null; // {from, to}
    this.samples = [];
    this.encoded = null;
    this.frame = Frame.plain(run.names.length);
    this.plane = new Plane(this.find(".plane"), run, this.codes);
    this.sheet = new Sheet(this.plane, this.shape);
    this.drawn = () => {}; // called with an image that was drawn here, and its label where it has one
    this.#write();
    listen(this);
    addSliders(this);
    this.plane.setFrame(this.frame);
    new ResizeObserver(() => this.resize()).observe(this.find(".plane"));
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  get decode() {
    return (z) => this.model.decode(z, this.label);
  }

  // What can be done -------------------------------------------------------------------------------------------------

  moveTo(z) {
    this.z = z;
    if (this.drawingLine) this.line = { from: this.line?.from ?? z, to: z };
    this.later("point", this.drawingLine && "line");
  }

  /** Move along the plane's axes, in tenths of the prior's scale. */
  step(across, up) {
    const c = this.frame.to(this.z);
    const [first, second] = this.run.dims;
    const scale = (dim) => (this.frame.symbol === "u" ? 1 : this.prior.scale[dim]) / 10;
    c[first] += across * scale(first);
    if (second !== undefined) c[second] += up * scale(second);
    this.moveTo(this.frame.from(c));
  }

  setLabel(label) {
    if (!(label < this.model.classes)) return;
    this.label = label;
    this.element.querySelectorAll(".classes button").forEach((button, i) => press(button, i === label));
    this.#encode();
    this.later("point", "line", "samples", "base");
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
    this.frame = this.frame.symbol === "u" ? Frame.plain(this.z.length) : Frame.whitened(this.prior);
    press(this.find(".whiten"), this.frame.symbol === "u");
    this.plane.setFrame(this.frame);
    addSliders(this);
    this.#encode();
    this.later("point", "base", "sheet");
  }

  /** Begin a line at the point, or end the one that is being drawn. */
  toggleLine() {
    this.drawingLine = !this.drawingLine;
    if (this.drawingLine) this.line = { from: this.z, to: this.z };
    press(this.find(".line"), this.drawingLine);
    this.later("line", "point");
  }

  removeLine() {
    if (this.drawingLine) this.toggleLine();
    this.line = null;
    this.samples = [];
    this.later("line", "samples", "point");
  }

  drawSamples() {
    this.samples = Array.from({ length: SAMPLES.columns * SAMPLES.rows }, () => this.prior.sample());
    this.later("samples", "point");
  }

  /** Take a test image into the pad, with its class. */
  takeImage() {
    const size = this.shape.reduce((product, n) => product * n);
    const { values, labels } = this.run.images;
    this.images ??= bytes(values);
    const chosen = Math.floor(Math.random() * labels.length);
    const image = Float32Array.from(this.images.subarray(chosen * size, (chosen + 1) * size), (value) => value / 255);
    this.receive(image, labels[chosen]);
    this.drawn(image, labels[chosen]);
  }

  /** Show an image of the test set, or one that was drawn in another panel. */
  receive(image, label) {
    this.pad.show(image);
    this.setLabel(label);
    this.#encode();
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
    const due = this.due;
    this.due = new Set();
    if (!this.plane.width) return;
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
    const rest = this.frame.to(this.z).filter((_, dim) => !this.run.dims.includes(dim));
    return [this.label, ...rest.map((value) => Math.round(value * 1e6))].join(); // coordinates change in the last digit
  }

  #showPoint() {
    showImages(this.find(".decoded canvas"), [this.decode(this.z)], this.shape);
    const c = this.frame.to(this.z);
    this.find(".decoded .where").textContent = this.run.dims
      .map((dim) => `${this.frame.name(dim)} = ${written(c[dim])}`)
      .join("\n");
    this.element.querySelectorAll(".sliders input").forEach((slider) => {
      const value = c[Number(slider.dataset.dim)];
      if (document.activeElement !== slider || Math.abs(slider.value - value) > 0.02) slider.value = value;
      slider.nextElementSibling.textContent = written(value);
    });
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

  #encode() {
    const drawn = !this.pad.isEmpty;
    this.encoded = drawn ? this.model.encode(this.pad.image, this.label) : null;
    this.find(".draw").classList.toggle("empty", !drawn);
    const image = drawn ? this.decode(this.encoded.mean) : new Float32Array(this.pad.image.length);
    showImages(this.find(".reconstruction"), [image], this.shape);
    this.find(".draw .where").textContent = drawn ? this.#encodedAt() : "";
    this.later("overlay");
  }

  #encodedAt() {
    const c = this.frame.to(this.encoded.mean);
    const covariance = this.frame.covariance(this.encoded.factor, this.run.dims);
    return this.run.dims
      .map((dim, i) => `${this.frame.name(dim)} = ${written(c[dim])} ± ${written(Math.sqrt(covariance[i][i]))}`)
      .join("   ");
  }

  #write() {
    this.find(".name").textContent = this.run.name;
    this.find(".note").textContent = this.run.note;
    this.find(".overlay").setAttribute("aria-label", `Latent space of ${this.run.name}`);
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
    this.pad = new Pad(this.find(".pad"), this.shape, (image) => {
      this.#encode();
      this.drawn(image);
    });
    this.#encode();
  }
}

function press(button, pressed) {
  button.setAttribute("aria-pressed", String(Boolean(pressed)));
}
