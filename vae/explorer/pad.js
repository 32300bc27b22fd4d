"use strict";
// Pictures in canvases: drawing them with the pointer, and showing them.

/** Image values in [0, 1] by channel, row and column, as pixels at (left, top) of RGBA data `width` pixels wide. */
function writePixels(rgba, width, left, top, image, [channels, rows, columns]) {
  const size = rows * columns;
  for (let y = 0, at = 0; y < rows; y++)
    for (let x = 0; x < columns; x++, at++) {
      const to = 4 * ((top + y) * width + left + x);
      for (let c = 0; c < 3; c++) rgba[to + c] = Math.round(255 * image[channels === 1 ? at : c * size + at]);
      rgba[to + 3] = 255;
    }
}

/** Show images side by side, `columns` in a row, `gap` transparent pixels between them. */
function showImages(canvas, images, shape, columns = 1, gap = 0) {
  const [, height, width] = shape;
  const rows = Math.ceil(images.length / columns);
  canvas.width = columns * (width + gap) - gap;
  canvas.height = rows * (height + gap) - gap;
  const pixels = new ImageData(canvas.width, canvas.height);
  images.forEach((image, i) => {
    const [left, top] = [(i % columns) * (width + gap), Math.floor(i / columns) * (height + gap)];
    writePixels(pixels.data, canvas.width, left, top, image, shape);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** A small canvas to draw an image in: white strokes on black, as thick as handwriting. */
class Pad {
  constructor(canvas, shape, changed) {
    this.canvas = canvas;
    this.shape = shape;
    this.changed = changed;
    this.radius = Math.max(0.75, Math.min(shape[1], shape[2]) / 24);
    this.show(new Float32Array(shape[0] * shape[1] * shape[2]));
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.last = this.#at(event);
      this.#stroke(this.last, this.last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.last) return;
      const next = this.#at(event);
      this.#stroke(this.last, next);
      this.last = next;
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.last = null));
  }

  get isEmpty() {
    return this.image.every((value) => value === 0);
  }

  show(image) {
    this.image = image;
    showImages(this.canvas, [image], this.shape);
  }

  set(image) {
    this.show(image);
    this.changed(image);
  }

  clear() {
    this.set(new Float32Array(this.image.length));
  }

  /** Move what is drawn so that its centre of mass is in the middle, as that of MNIST's digits is. */
  centre() {
    const [channels, rows, columns] = this.shape;
    let [mass, across, down] = [0, 0, 0];
    this.image.forEach((value, i) => {
      mass += value;
      across += value * (i % columns);
      down += value * (Math.floor(i / columns) % rows);
    });
    if (!mass) return;
    const [dx, dy] = [Math.round(across / mass - (columns - 1) / 2), Math.round(down / mass - (rows - 1) / 2)];
    const moved = new Float32Array(this.image.length);
    for (let c = 0, at = 0; c < channels; c++)
      for (let y = 0; y < rows; y++)
        for (let x = 0; x < columns; x++, at++) {
          const inside = x + dx >= 0 && x + dx < columns && y + dy >= 0 && y + dy < rows;
          moved[at] = inside ? this.image[at + dy * columns + dx] : 0;
        }
    this.set(moved);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [, rows, columns] = this.shape;
    return [((event.clientX - box.left) / box.width) * columns, ((event.clientY - box.top) / box.height) * rows];
  }

  #stroke(from, to) {
    const [channels, rows, columns] = this.shape;
    const image = this.image.slice();
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        const ink = Math.min(1, Math.max(0, this.radius + 0.5 - distanceToSegment([x + 0.5, y + 0.5], from, to)));
        for (let c = 0; c < channels; c++) {
          const at = (c * rows + y) * columns + x;
          image[at] = Math.max(image[at], ink);
        }
      }
    this.set(image);
  }
}

function distanceToSegment([x, y], [ax, ay], [bx, by]) {
  const length = (bx - ax) ** 2 + (by - ay) ** 2;
  const t = length ? Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length)) : 0;
  return Math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay));
}
