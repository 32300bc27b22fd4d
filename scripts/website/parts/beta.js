"use strict";
// Five trained models, each with another β: their codes, what their planes decode to, and what they cost.

live.part("beta", async (element) => {
  if (tooOld()) throw new Error(tooOld());
  const BUDGET = 10; // milliseconds of a frame for tiles
  const slider = element.querySelector("input");
  const image = element.querySelector(".under canvas");
  const names = element.dataset.runs.split(" ");
  const views = [];
  let [shown, z, due] = [null, [0, 0], false];

  async function view(i) {
    return (views[i] ??= (async () => {
      const run = await live.described(names[i]);
      const prior = new Prior(run.prior);
      const codes = rowsOf(run.codes.means, 2);
      const planes = ["codes", "sheet"].map((what) => {
        const plane = new Plane(element.querySelector(`[data-shows="${what}"]`), run, codes, prior);
        plane.set(Frame.plain(2));
        return plane;
      });
      return { run, model: new Model(run.networks), planes, sheet: new Sheet(planes[1], run.networks.shape) };
    })());
  }

  function frame() {
    due = false;
    const { run, model, planes, sheet } = shown;
    if (!planes[0].width) return;
    const decode = (latent) => model.decode(latent);
    if (sheet.waiting.length) {
      sheet.goOn(decode, BUDGET);
      planes[1].drawBase(sheet.canvas, null);
      later();
    }
    for (const plane of planes) drawMarks(plane, { z, line: null, encoded: null, samples: [] });
    showImages(image, [decode(z)], run.networks.shape);
  }
  const later = () => {
    if (!due) requestAnimationFrame(frame);
    due = true;
  };

  function resize() {
    for (const plane of shown.planes) plane.resize();
    shown.planes[0].drawBase(null, null);
    shown.sheet.start(z);
    later();
  }

  async function show() {
    const i = Number(slider.value);
    const next = await view(i);
    if (i !== Number(slider.value)) return; // it was moved meanwhile
    shown = next;
    const { beta, metrics } = shown.run;
    slider.nextElementSibling.textContent = beta;
    slider.setAttribute("aria-valuetext", `β = ${beta}`);
    for (const name of ["total", "recon", "kl"])
      element.querySelector(`[data-told="${name}"]`).textContent = metrics[`test/${name}`].toFixed(1);
    resize();
  }

  element.querySelectorAll(".marks").forEach((canvas, i) => {
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      const { zoom } = shown.planes[i];
      z = shown.planes[i].latentAt([(event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom], z);
      later();
    };
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (!step) return;
      event.preventDefault();
      z = add(z, step);
      later();
    });
  });
  slider.addEventListener("input", show);
  await show();
  element.state = () => ({ z, ...shown }); // for whoever looks from outside
  new ResizeObserver(resize).observe(element.querySelector(".plane"));
  live.onTheme(resize);
});
