"use strict";
// The plane tiled by decoded images, a few of them in every frame.

const TILE = 42; // pixels of the plane that a tile is wide, nearly
const STRIP_TILE = 64; // where there is but one row of them

class Sheet {
  constructor(plane, shape) {
    this.plane = plane;
    this.shape = shape;
    this.canvas = document.createElement("canvas");
    this.tile = document.createElement("canvas");
    this.waiting = []; // tiles that are still to be decoded
  }

  /** Width, height and number of the tiles that fill the plane, or the band below a single dimension. */
  get tiles() {
    const { inner, single } = this.plane;
    const [, rows, columns] = this.shape;
    const across = Math.max(1, Math.round(inner.width / (single ? STRIP_TILE : TILE)));
    const width = inner.width / across;
    const upright = (width * rows) / columns;
    const down = single ? 1 : Math.max(1, Math.round(inner.height / upright));
    return { across, down, width, height: single ? upright : inner.height / down };
  }

  /** Decode every tile again, those in the middle of the plane first; the dimensions not shown are as in `z`. */
  start(z) {
    const { plane } = this;
    const { width: whole, height: high } = plane.inner;
    const { across, down, width, height } = this.tiles;
    const size = [whole, high].map((length) => Math.round(length * plane.ratio));
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1] || plane.places !== this.places) {
      [this.canvas.width, this.canvas.height] = size; // which empties it; else the old tiles stay until there are new ones
    }
    this.places = plane.places; // which are others in another plane
    this.waiting = [];
    for (let row = 0; row < down; row++)
      for (let column = 0; column < across; column++) {
        const [left, top] = [column * width, high - (down - row) * height];
        const middle = [left + width / 2, top + height / 2];
        const away = Math.hypot(middle[0] - whole / 2, middle[1] - high / 2);
        const at = plane.latentAt([MARGIN.left + middle[0], MARGIN.top + middle[1]], z);
        this.waiting.push({ z: at, left, top, width, height, away });
      }
    this.waiting.sort((a, b) => b.away - a.away);
  }

  /** Decode tiles for some milliseconds. */
  goOn(decode, milliseconds) {
    const context = this.canvas.getContext("2d");
    const until = performance.now() + milliseconds;
    while (this.waiting.length && performance.now() < until) {
      const { z, left, top, width, height } = this.waiting.pop();
      showImages(this.tile, [decode(z)], this.shape);
      const [x, y, right, bottom] = [left, top, left + width, top + height].map((at) => Math.round(at * this.plane.ratio));
      context.drawImage(this.tile, x, y, right - x, bottom - y);
    }
  }
}
