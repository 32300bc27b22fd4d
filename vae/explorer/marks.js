"use strict";
// What moves above the plane: the point, a line, draws from the prior, and where a drawing is encoded.

function drawMarks(plane, { z, line, encoded, samples }) {
  const context = plane.context(plane.overlay);
  const colours = palette(plane.holder);
  for (const sample of samples) ring(plane, context, plane.place(sample), 3.5, colours.ink, colours.card, 1.4);
  if (line) {
    const ends = [line.from, line.to].map((end) => plane.toPixel(plane.place(end)));
    for (const [width, colour] of [[6, colours.card], [3, colours.accent]]) {
      context.beginPath();
      ends.forEach((end) => context.lineTo(...end));
      context.lineWidth = width;
      context.lineCap = "round";
      context.strokeStyle = colour;
      context.stroke();
    }
    for (const end of [line.from, line.to]) ring(plane, context, plane.place(end), 5, colours.accent, colours.card, 3);
  }
  if (encoded) drawEncoded(plane, context, encoded, colours);
  drawPoint(plane, context, z, colours);
}

function ring(plane, context, place, radius, colour, halo, width) {
  for (const [thickness, stroke] of [[width + 2.5, halo], [width, colour]]) {
    context.beginPath();
    context.arc(...plane.toPixel(place), radius, 0, 2 * Math.PI);
    context.lineWidth = thickness;
    context.strokeStyle = stroke;
    context.stroke();
  }
}

function drawPoint(plane, context, z, colours) {
  const place = plane.place(z);
  const [x] = plane.toPixel(place);
  if (plane.single) {
    context.fillStyle = colours.accent;
    context.fillRect(x - 1, MARGIN.top, 2, plane.inner.height);
  }
  ring(plane, context, place, 8, colours.accent, colours.card, 3);
}

/** Where a drawing is encoded: the ellipse (or the bar) of one σ, if it has one, and a cross that leaves its middle free. */
function drawEncoded(plane, context, { mean, factor }, colours) {
  const place = plane.place(mean);
  const [x, y] = plane.toPixel(place);
  let [reachX, reachY] = [0, 0];
  if (factor) {
    const covariance = plane.frame.covariance(factor, plane.dims);
    [reachX, reachY] = [0, plane.single ? 0 : 1].map((axis) => plane.unit[0] * Math.sqrt(covariance[axis][axis]));
    context.beginPath();
    if (plane.single) context.rect(x - reachX, y - 14, 2 * reachX, 14);
    else ellipse(place, covariance, 1).forEach((point) => context.lineTo(...plane.toPixel(point)));
    context.fillStyle = colours.mark;
    context.globalAlpha = 0.35;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    context.strokeStyle = colours.mark;
    context.stroke();
  }
  const arms = [[1, 0, reachX], [-1, 0, reachX], [0, -1, reachY], [0, 1, reachY]].slice(0, plane.single ? 3 : 4);
  for (const [width, colour] of [[5.5, colours.card], [3, colours.mark]])
    for (const [dx, dy, reach] of arms) {
      context.beginPath();
      context.moveTo(x + dx * (reach + 4), y + dy * (reach + 4));
      context.lineTo(x + dx * (reach + 14), y + dy * (reach + 14));
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.lineCap = "butt";
      context.stroke();
    }
}
