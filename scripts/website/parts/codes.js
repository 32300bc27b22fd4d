"use strict";
// A codebook on the plane of a trained model: one code stands for everything in its cell.

live.part("codes", async (element) => {
  if (tooOld()) throw new Error(tooOld());
  const EDGE = 4; // of the plane
  const KEYS = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  const run = await live.described(element.dataset.runs);
  const model = new Model(run.networks);
  const features = rowsOf(run.codes.means, 2);
  const random = draws(7);
  const pictures = new WeakMap(); // of codes, each an array that is never changed
  let codes = [];
  let place = [0, 0]; // of the pointer

  const apart = ([a, b], [c, d]) => (a - c) ** 2 + (b - d) ** 2;
  const nearest = (point) => {
    let best = 0;
    for (let i = 1; i < codes.length; i++) if (apart(point, codes[i]) < apart(point, codes[best])) best = i;
    return best;
  };
  const feature = () => features[Math.floor(random.uniform() * features.length)];
  const within = (point) => point.map((x) => Math.max(0.3 - EDGE, Math.min(EDGE - 0.3, x))); // with its picture
  const drawn = () => within([random.normal(), random.normal()]);

  /** Each code's features. */
  function taken() {
    const found = codes.map(() => []);
    for (const each of features) found[nearest(each)].push(each);
    return found;
  }

  /** What is nearer to a code than to every other one: the square, cut at the middle to each of them. */
  function cell(code) {
    const square = [[-EDGE, -EDGE], [EDGE, -EDGE], [EDGE, EDGE], [-EDGE, EDGE]];
    return codes.reduce((corners, other) => (other === code ? corners : cut(corners, code, other)), square);
  }

  function cut(corners, code, other) {
    const beyond = (point) => apart(point, code) - apart(point, other); // linear, and positive on the other's side
    return corners.flatMap((corner, i) => {
      const next = corners[(i + 1) % corners.length];
      const [a, b] = [beyond(corner), beyond(next)];
      const kept = a <= 0 ? [corner] : [];
      return a < 0 === b < 0 ? kept : [...kept, corner.map((x, of) => x + ((next[of] - x) * a) / (a - b))];
    });
  }

  function picture(code) {
    if (!pictures.has(code)) {
      const canvas = document.createElement("canvas");
      showImages(canvas, [model.decode(code)], run.networks.shape);
      pictures.set(code, canvas);
    }
    return pictures.get(code);
  }

  const controls = new Controls(element, () => take(controls.get("count")));
  const plot = new Plot(
    element.querySelector("canvas"),
    { x: [-EDGE, EDGE], y: [-EDGE, EDGE], equal: true, margin: [0, 0, 0, 0] },
    ({ colours, context }) => {
      const of = nearest(place);
      const found = taken();
      const cells = codes.map(cell);
      plot.area(cells[of], colours.accent, 0.15);
      found.forEach((some, i) => some.forEach((each) => plot.dot(each, i === of ? colours.accent : colours.quiet, 1.5, 0.6)));
      for (const corners of cells) plot.line([...corners, corners[0]], colours.quiet, 1);
      const size = Math.max(16, plot.width / 17);
      codes.forEach((code, i) => {
        const [x, y] = plot.toPixel(code);
        context.fillStyle = i === of ? colours.accent : colours.card;
        context.fillRect(x - size / 2 - 2, y - size / 2 - 2, size + 4, size + 4);
        context.drawImage(picture(code), x - size / 2, y - size / 2, size, size);
      });
      plot.line([place, codes[of]], colours.mark, 2);
      plot.dot(place, colours.mark, 4);
      write(found, of);
    },
  );

  function write(found, of) {
    const shares = found.map((some) => some.length / features.length).filter(Boolean);
    const values = {
      error: average(found.flatMap((some, i) => some.map((each) => apart(each, codes[i])))).toFixed(3),
      used: shares.length,
      alike: `${Math.log(codes.length).toFixed(2)} nats`,
      shares: `${Math.abs(shares.reduce((sum, p) => sum - p * Math.log(p), 0)).toFixed(2)} nats`,
    };
    for (const [name, value] of Object.entries(values)) element.querySelector(`[data-told="${name}"]`).textContent = value;
    for (const [name, z] of [["place", place], ["code", codes[of]]])
      showImages(element.querySelector(`[data-shows="${name}"]`), [model.decode(z)], run.networks.shape);
  }

  /** So many codes: the first that there are, and features for the others. */
  function take(count) {
    codes = Array.from({ length: count }, (_, i) => codes[i] ?? feature());
    plot.handles = codes.map((_, i) => ({ at: () => codes[i], move: (...to) => move(i, to) }));
    plot.later();
  }

  function move(i, to) {
    place = codes[i] = within(to);
    plot.later();
  }

  plot.canvas.addEventListener("pointermove", (event) => {
    if (plot.held) return;
    const box = plot.canvas.getBoundingClientRect();
    place = plot.fromPixel(event.clientX - box.left, event.clientY - box.top);
    plot.later();
  });
  plot.canvas.addEventListener("keydown", (event) => {
    const chosen = nearest(place);
    if (event.key in KEYS) move(chosen, codes[chosen].map((x, i) => x + KEYS[event.key][i]));
    else if (event.key.toLowerCase() === "n") place = codes[(chosen + 1) % codes.length];
    else return;
    event.preventDefault();
    plot.later();
  });
  element.querySelector('[data-do="step"]').addEventListener("click", () => {
    const middle = (some) => [0, 1].map((i) => average(some.map((each) => each[i])));
    codes = taken().map((some) => (some.length ? middle(some) : feature()));
    plot.later();
  });
  element.querySelector('[data-do="draw"]').addEventListener("click", () => {
    codes = codes.map(drawn);
    plot.later();
  });
  codes = Array.from({ length: controls.get("count") }, drawn);
  take(codes.length);
  element.state = () => ({ codes, place, features, decode: (z) => [...model.decode(z)] }); // for whoever looks from outside
});
