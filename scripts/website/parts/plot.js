"use strict";
// Curves, points and handles in a canvas, in the coordinates of what is shown.

const HANDLE = 9; // pixels
const REACH = 40; // pixels from which a handle can be taken

class Plot {
  /** `draw(plot)` is called whenever something has changed; `handles` are {at: () => [x, y], move: (x, y) => …}. */
  constructor(canvas, { x, y, equal = false, margin = [14, 14, 30, 14] }, draw, handles = []) {
    Object.assign(this, { canvas, x, y, equal, margin, draw, handles });
    new ResizeObserver(() => this.resize()).observe(canvas);
    live.onTheme(() => this.later());
    canvas.addEventListener("pointerdown", (event) => {
      this.held = this.#nearest(event);
      if (!this.held) return;
      canvas.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.held) this.held.move(...this.fromPixel(...this.#place(event)));
      canvas.style.cursor = this.held ? "grabbing" : this.#nearest(event) ? "grab" : "";
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.held = null));
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.width) return;
      const style = getComputedStyle(this.canvas);
      const names = ["ink", "quiet", "edge", "accent", "mark", "card", "soft"];
      this.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
      this.font = style.fontFamily;
      this.text = parseFloat(style.fontSize);
      this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      this.context.clearRect(0, 0, this.width, this.height);
      this.draw(this);
    });
  }

  resize() {
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.context = this.canvas.getContext("2d");
    const [top, right, bottom, left] = this.margin;
    const unit = [
      (this.width - left - right) / (this.x[1] - this.x[0]),
      (this.height - top - bottom) / (this.y[1] - this.y[0]),
    ];
    this.unit = this.equal ? [Math.min(...unit), Math.min(...unit)] : unit;
    const middle = [left + (this.width - left - right) / 2, top + (this.height - top - bottom) / 2];
    this.origin = [
      middle[0] - (this.unit[0] * (this.x[0] + this.x[1])) / 2,
      middle[1] + (this.unit[1] * (this.y[0] + this.y[1])) / 2,
    ];
    this.later();
  }

  toPixel([x, y]) {
    return [this.origin[0] + this.unit[0] * x, this.origin[1] - this.unit[1] * y];
  }

  fromPixel(left, top) {
    return [(left - this.origin[0]) / this.unit[0], (this.origin[1] - top) / this.unit[1]];
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #nearest(event) {
    const [left, top] = this.#place(event);
    const away = ({ at }) => {
      const [x, y] = this.toPixel(at());
      return Math.hypot(x - left, y - top);
    };
    const best = this.handles.reduce((a, b) => (a && away(a) <= away(b) ? a : b), null);
    return best && away(best) < REACH ? best : null;
  }

  // What can be drawn --------------------------------------------------------------------------------------------------

  line(points, colour, width = 2, dash = []) {
    const { context } = this;
    context.beginPath();
    points.forEach((point) => context.lineTo(...this.toPixel(point)));
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  }

  area(points, colour, opacity = 0.2) {
    const { context } = this;
    context.beginPath();
    points.forEach((point) => context.lineTo(...this.toPixel(point)));
    context.closePath();
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
  }

  dot(point, colour, radius = 3.5, opacity = 1) {
    const { context } = this;
    context.beginPath();
    context.arc(...this.toPixel(point), radius, 0, 2 * Math.PI);
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
  }

  handle(point, colour) {
    this.dot(point, this.colours.card, HANDLE + 2);
    this.dot(point, colour, HANDLE);
    this.dot(point, this.colours.card, HANDLE / 3);
  }

  arrow(from, to, colour) {
    const [a, b] = [this.toPixel(from), this.toPixel(to)];
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    if (length < 3) return;
    const [dx, dy] = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
    const head = Math.min(9, length);
    const { context } = this;
    context.beginPath();
    context.moveTo(...a);
    context.lineTo(b[0] - head * dx, b[1] - head * dy);
    context.strokeStyle = colour;
    context.lineWidth = 3;
    context.stroke();
    context.beginPath();
    context.moveTo(...b);
    context.lineTo(b[0] - head * dx + 0.5 * head * dy, b[1] - head * dy - 0.5 * head * dx);
    context.lineTo(b[0] - head * dx - 0.5 * head * dy, b[1] - head * dy + 0.5 * head * dx);
    context.fillStyle = colour;
    context.fill();
  }

  label(text, point, colour, { align = "center", shift = [0, 0], size = 1, bold = false } = {}) {
    const { context } = this;
    const [left, top] = this.toPixel(point);
    context.font = `${bold ? "600 " : ""}${size * this.text}px ${this.font}`;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.lineWidth = 4;
    context.strokeStyle = this.colours.card;
    context.strokeText(text, left + shift[0], top + shift[1]);
    context.fillStyle = colour;
    context.fillText(text, left + shift[0], top + shift[1]);
  }

  /** A horizontal axis at a height, with its whole numbers. */
  axis(y, name, from = this.x[0], to = this.x[1]) {
    this.line([[from, y], [to, y]], this.colours.edge, 1.5);
    for (let tick = Math.ceil(from); tick <= to; tick++)
      this.label(String(tick).replace("-", "−"), [tick, y], this.colours.quiet, { shift: [0, 13], size: 0.85 });
    this.label(name, [to, y], this.colours.ink, { align: "right", shift: [0, -11], bold: true });
  }
}

/** The sliders of a part by name: their values, a way to set one, and a call after each change. */
class Controls {
  constructor(element, changed) {
    this.changed = changed;
    this.inputs = Object.fromEntries([...element.querySelectorAll("input")].map((input) => [input.name, input]));
    for (const input of Object.values(this.inputs)) {
      input.addEventListener("input", () => {
        this.#write(input);
        this.changed();
      });
      this.#write(input);
    }
  }

  get(name) {
    const input = this.inputs[name];
    return input.type === "range" ? Number(input.value) : input.checked;
  }

  /** Several values at once, each as far as its slider goes. */
  set(values) {
    for (const [name, value] of Object.entries(values)) {
      if (this.inputs[name].type === "range") this.inputs[name].value = value;
      else this.inputs[name].checked = value;
      this.#write(this.inputs[name]);
    }
    this.changed();
  }

  #write(input) {
    const output = input.parentElement.querySelector("output");
    if (output) output.textContent = signed(input.valueAsNumber, input.step === "1" ? 0 : 2);
  }
}

const signed = (value, digits = 2) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
const range = (from, to, count) => Array.from({ length: count }, (_, i) => from + ((to - from) * i) / (count - 1));
const density = (x, mean, sigma) => Math.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * Math.sqrt(2 * Math.PI));
const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Draws that look the same to everybody, which Math.random's do not. */
function draws(seed) {
  let state = seed;
  const uniform = () => (state = (state * 16807) % 2147483647) / 2147483647;
  return { uniform, normal: () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()) };
}
