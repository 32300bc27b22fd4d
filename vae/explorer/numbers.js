"use strict";
// Numbers as vae/explorer/numbers.py packed them.

/** A description with typed arrays in place of what was packed. */
async function unpacked(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return typeof value[0] === "object" ? Promise.all(value.map(unpacked)) : value;
  if ("deflated" in value) return numbers(await inflated(value.deflated), value);
  const entries = Object.entries(value).map(async ([key, part]) => [key, await unpacked(part)]);
  return Object.fromEntries(await Promise.all(entries));
}

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%,')*+-;.:>?@^_`[|]~";

async function inflated(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Four bytes of every five digits to the base 85; what lacks in the last ones was cut off. */
function bytes(text) {
  const worth = new Uint8Array(128);
  [...DIGITS].forEach((digit, i) => (worth[digit.charCodeAt(0)] = i));
  const quads = Math.ceil(text.length / 5);
  const view = new DataView(new ArrayBuffer(4 * quads));
  for (let quad = 0, at = 0; quad < quads; quad++) {
    let value = 0;
    for (let end = at + 5; at < end; at++) value = 85 * value + (at < text.length ? worth[text.charCodeAt(at)] : 84);
    view.setUint32(4 * quad, value);
  }
  return new Uint8Array(view.buffer, 0, 4 * quads - (5 * quads - text.length));
}

/** Bytes, float32, or multiples of a step whose signs are in the lowest bits. */
function numbers(planes, { bytes: width, step }) {
  if (width === 1 && !step) return planes;
  const bits = new Uint32Array(planes.length / width);
  for (let place = 0, at = 0; place < width; place++)
    for (let i = 0; i < bits.length; i++, at++) bits[i] |= planes[at] << (8 * place);
  return step ? Float32Array.from(bits, (value) => ((value >>> 1) ^ -(value & 1)) * step) : new Float32Array(bits.buffer);
}

/** The rows of a matrix as plain arrays. */
function rowsOf(values, width) {
  return Array.from({ length: values.length / width }, (_, i) => Array.from(values.subarray(i * width, (i + 1) * width)));
}
