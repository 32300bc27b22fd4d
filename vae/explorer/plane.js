"use strict";
// The plane: where latents are in it, the codes by class and the prior's contours.

const MARGIN = { left: 40, right: 12, top: 12, bottom: 28 }; // for the ticks
const REM = 10; // pixels of the plane: on large screens, where 1rem of the style is more of CSS pixels, so are these
const LIGHT = { ink: "#ffffff", card: "rgb(0 0 0 / 60%)" }; // lines and their halos on tiles, which are mostly dark
const NEARBY = [[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0], [-1, -1], [1, 1], [-1, 1], [1, -1]]; // in heights of a name

/** The colours of an element's page as it looks now. */
function palette(element) {
  const style = getComputedStyle(element);
  const names = ["font", "card", "ink", "quiet", "accent", "mark", "dot"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

class Plane {
  /** `holder` has two canvases: below what rarely changes, above it what follows the pointer. */
  constructor(holder, run, codes, prior) {
    this.run = run;
    this.codes = codes;
    this.prior = prior;
    this.dims = run.dims;
    this.single = run.dims.length === 1;
    this.band = 0;
    this.holder = holder;
    [this.base, this.overlay] = holder.querySelectorAll("canvas");
  }

  /** Show the latents in these coordinates, of which one or two span the plane. */
  set(frame, dims = this.dims) {
    this.frame = frame;
    this.dims = dims;
    this.places = this.codes.map((z) => this.place(z));
    this.outlines = this.prior.outlines(frame, dims);
    this.#measure();
  }

  /** Where a latent is in the plane; a single dimension has no height. */
  place(z) {
    const c = this.frame.to(z);
    return [c[this.dims[0]], this.single ? 0 : c[this.dims[1]]];
  }

  /** Let the canvases be as large as the page says, in the screen's own pixels; the plane's own are smaller than those. */
  resize() {
    const { clientWidth, clientHeight } = this.holder;
    this.zoom = parseFloat(getComputedStyle(this.holder).fontSize) / REM;
    this.ratio = this.zoom * (window.devicePixelRatio || 1);
    this.width = clientWidth / this.zoom;
    this.height = clientHeight / this.zoom;
    for (const canvas of [this.base, this.overlay]) {
      canvas.width = Math.round(this.width * this.ratio);
      canvas.height = Math.round(this.height * this.ratio);
    }
    this.inner = {
      width: Math.max(1, this.width - MARGIN.left - MARGIN.right),
      height: Math.max(1, this.height - MARGIN.top - MARGIN.bottom),
    };
    this.#measure();
  }

  /** Leave room for so many pixels of tiles below the densities of a single dimension. */
  setBand(height) {
    this.band = this.single ? height : 0;
    this.#measure();
  }

  #measure() {
    if (!this.inner || !this.frame) return;
    const { width, height } = this.inner;
    if (this.single) {
      const { x, prior, aggregate } = this.run.density;
      const reach = x[x.length - 1] - x[0];
      this.unit = [width / reach, ((height - this.band) * 0.94) / Math.max(...prior, ...aggregate)];
      this.origin = [MARGIN.left - x[0] * this.unit[0], MARGIN.top + height - this.band - 2];
      return;
    }
    const all = [...this.places, ...this.outlines.flat(2)];
    const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((i) => all.reduce((m, p) => end(m, p[i]), all[0][i])));
    const unit = 0.96 * Math.min(width / (high[0] - low[0]), height / (high[1] - low[1]));
    this.unit = [unit, unit];
    this.origin = [
      MARGIN.left + width / 2 - (unit * (low[0] + high[0])) / 2,
      MARGIN.top + height / 2 + (unit * (low[1] + high[1])) / 2,
    ];
  }

  toPixel([x, y]) {
    return [this.origin[0] + this.unit[0] * x, this.origin[1] - this.unit[1] * y];
  }

  /** The latent under a pixel, the dimensions that the plane does not show as in `z`. */
  latentAt([left, top], z) {
    const c = this.frame.to(z);
    c[this.dims[0]] = (left - this.origin[0]) / this.unit[0];
    if (!this.single) c[this.dims[1]] = (this.origin[1] - top) / this.unit[1];
    return this.frame.from(c);
  }

  /** The code whose dot is at most a few pixels away. */
  codeAt([left, top]) {
    let [nearest, best] = [null, 7];
    this.places.forEach((place, i) => {
      const [x, y] = this.toPixel(this.single ? [place[0], this.#jitter(i)] : place);
      const distance = Math.hypot(x - left, y - top);
      if (distance < best) [nearest, best] = [this.codes[i], distance];
    });
    return nearest;
  }

  // Below ------------------------------------------------------------------------------------------------------------

  /** Ticks and the prior's contours over the codes, or over a canvas of tiles; a conditional model's class stands out. */
  drawBase(sheet, label) {
    const context = this.context(this.base);
    const colours = palette(this.holder);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top, this.inner.width, this.inner.height);
    context.clip();
    if (sheet) context.drawImage(sheet, MARGIN.left, MARGIN.top, this.inner.width, this.inner.height);
    if (!sheet || this.single) this.#drawCodes(context, colours, label);
    const onTiles = sheet && !this.single;
    this.#drawPrior(context, onTiles ? { ...LIGHT, font: colours.font } : colours, onTiles);
    if (!sheet && label === null) this.#nameClasses(context, colours);
    context.restore();
    this.#drawTicks(context, colours);
  }

  /** An empty canvas to draw on in pixels of the plane. */
  context(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.lineJoin = "round";
    return context;
  }

  #drawCodes(context, colours, label) {
    const radius = this.places.length > 1500 ? 2.2 : 3;
    const draw = (i, opacity) => {
      const [x, y] = this.toPixel(this.single ? [this.places[i][0], this.#jitter(i)] : this.places[i]);
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = this.run.colours[this.run.codes.labels[i]];
      context.globalAlpha = opacity;
      context.fill();
    };
    const chosen = (i) => label === null || this.run.codes.labels[i] === label;
    context.lineWidth = 0.6;
    context.strokeStyle = colours.dot;
    const all = [...this.places.keys()];
    all.filter((i) => !chosen(i)).forEach((i) => draw(i, 0.1));
    for (const i of all.filter(chosen)) {
      draw(i, label === null ? 0.75 : 1);
      context.globalAlpha = 1;
      context.stroke();
    }
  }

  /** Codes of a single dimension fill the area under their density: the golden ratio spreads them evenly. */
  #jitter(i) {
    const { x, aggregate } = this.run.density;
    return interpolated(x, aggregate, this.places[i][0]) * (((i + 1) * 0.6180339887) % 1);
  }

  #drawPrior(context, colours, onTiles) {
    const trace = (points, width, colour) => {
      context.beginPath();
      points.forEach((point) => context.lineTo(...this.toPixel(point)));
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    };
    const lines = this.single
      ? [this.run.density.x.map((x, i) => [x, this.run.density.prior[i]])]
      : this.outlines.flat();
    if (onTiles) lines.forEach((line) => trace(line, 4, colours.card));
    lines.forEach((line) => trace(line, 1.3, colours.ink));
    if (this.single) return;
    context.font = `600 11px ${colours.font}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.outlines.forEach((group, i) => {
      if (!group.length) return;
      const top = group.flat().reduce((best, point) => (point[1] > best[1] ? point : best));
      this.#haloed(context, `${i + 1}σ`, this.toPixel(top), colours.ink, colours.card);
    });
  }

  #haloed(context, text, [x, y], ink, halo) {
    context.lineWidth = 4;
    context.strokeStyle = halo;
    context.strokeText(text, x, y);
    context.fillStyle = ink;
    context.fillText(text, x, y);
  }

  /** Each class's name at its median, or nearby where that is taken: colours alone would not do for everybody. */
  #nameClasses(context, colours) {
    if (this.single || this.run.classes.length > 12) return;
    context.font = `700 12px ${colours.font}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const taken = [];
    this.run.classes.forEach((name, label) => {
      const own = this.places.filter((_, i) => this.run.codes.labels[i] === label);
      if (!own.length) return;
      const [x, y] = this.toPixel([0, 1].map((axis) => median(own.map((place) => place[axis]))));
      const width = context.measureText(name).width + 12;
      const free = ([left, top]) =>
        taken.every(([l, t, w]) => Math.abs(l - left) > (w + width) / 2 || Math.abs(t - top) > 20);
      const spots = NEARBY.map(([dx, dy]) => [x + dx * Math.max(20, width), y + dy * 20]);
      const [left, top] = spots.find(free) ?? spots[0];
      taken.push([left, top, width]);
      context.beginPath();
      context.roundRect(left - width / 2, top - 9, width, 18, 9);
      context.fillStyle = this.run.colours[label];
      context.fill();
      context.lineWidth = 1.2;
      context.strokeStyle = colours.card;
      context.stroke();
      context.fillStyle = inkOn(this.run.colours[label]);
      context.fillText(name, left, top + 0.5);
    });
  }

  #drawTicks(context, colours) {
    const [left, bottom] = [MARGIN.left, MARGIN.top + this.inner.height];
    context.font = `11px ${colours.font}`;
    context.fillStyle = colours.quiet;
    context.textBaseline = "top";
    context.textAlign = "center";
    const [low, high] = [left, left + this.inner.width].map((pixel) => (pixel - this.origin[0]) / this.unit[0]);
    for (const tick of ticks(low, high, this.inner.width / 70)) {
      const [x] = this.toPixel([tick, 0]);
      if (x > left + 8 && x < left + this.inner.width - 44) context.fillText(written(tick, 6).replace(/\.?0+$/, ""), x, bottom + 8);
    }
    context.textAlign = "right";
    const [down, up] = [bottom, MARGIN.top].map((pixel) => (this.origin[1] - pixel) / this.unit[1]);
    context.textBaseline = "middle";
    for (const tick of this.single ? [] : ticks(down, up, this.inner.height / 60)) {
      const [, y] = this.toPixel([0, tick]);
      if (y < bottom - 8 && y > MARGIN.top + 24) context.fillText(written(tick, 6).replace(/\.?0+$/, ""), left - 8, y);
    }
    context.font = `600 13px ${colours.font}`;
    context.fillStyle = colours.ink;
    context.fillText(this.frame.name(this.dims[0]), left + this.inner.width - 6, bottom + 14);
    if (!this.single) context.fillText(this.frame.name(this.dims[1]), left - 8, MARGIN.top + 8);
  }
}

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  return 0.3 * red + 0.6 * green + 0.1 * blue > 0.55 ? "#000000" : "#ffffff";
}
