"use strict";
// Which two dimensions span the plane, and the sliders of all others.

const INFORMATIVE = 0.01; // nats: a dimension below says nothing about the image

/** The two menus, where there are more than two dimensions. */
function addMenus(panel) {
  const { names, kl } = panel.run;
  panel.find(".axes").hidden = names.length < 3;
  const menus = [...panel.element.querySelectorAll(".axes select")];
  menus.forEach((menu, axis) => {
    const options = names.map((name, dim) => new Option(kl ? `${name} · ${written(kl[dim])} nats` : name, dim));
    menu.replaceChildren(...options);
    menu.addEventListener("change", () => {
      const dims = [...panel.plane.dims];
      dims[axis] = Number(menu.value);
      panel.span(dims);
    });
  });
}

/** Let menus and sliders be those of the plane's dimensions and coordinates. */
function writeAxes(panel) {
  const { dims } = panel.plane;
  panel.element.querySelectorAll(".axes select").forEach((menu, axis) => {
    menu.value = dims[axis];
    [...menu.options].forEach((option, dim) => (option.disabled = dim === dims[1 - axis]));
  });
  const said = collapse(panel.run, dims);
  panel.find(".collapse").hidden = !said;
  panel.find(".collapse").textContent = said;
  addSliders(panel);
}

/** What to say of a plane in whose dimensions the posterior is the prior. */
function collapse({ kl, names }, dims) {
  if (!kl) return "";
  const silent = (all) => all.filter((dim) => kl[dim] < INFORMATIVE);
  const here = silent(dims);
  if (!here.length) return "";
  const one = here.length === 1;
  const most = written(Math.max(...here.map((dim) => kl[dim])));
  const said = `${here.map((dim) => names[dim]).join(" and ")} ${one ? "carries" : "carry"} no information: KL ${most} nats.`;
  if (silent([...kl.keys()]).length === kl.length) return `${said} Every point decodes to the same image.`;
  return here.length === dims.length ? `${said} Every point of this plane decodes to the same image.` : said;
}

/** One slider for each dimension that the plane does not show. */
function addSliders(panel) {
  const { frame, dims } = panel.plane;
  const rest = panel.run.names.map((_, dim) => dim).filter((dim) => !dims.includes(dim));
  const at = panel.codes.map((z) => frame.to(z));
  panel.find(".sliders").replaceChildren(
    ...rest.map((dim) => {
      const scale = frame.symbol === "u" ? 1 : panel.prior.scale[dim];
      const middle = frame.symbol === "u" ? 0 : panel.prior.mean[dim];
      const low = at.reduce((least, c) => Math.min(least, c[dim]), middle - 3 * scale);
      const high = at.reduce((most, c) => Math.max(most, c[dim]), middle + 3 * scale);
      const label = document.createElement("label");
      label.innerHTML = `<span></span><input type="range" step="any"><output></output>`;
      label.firstChild.textContent = frame.name(dim);
      const slider = label.children[1];
      Object.assign(slider, { min: low, max: high, value: frame.to(panel.z)[dim] });
      slider.dataset.dim = dim;
      slider.addEventListener("input", () => {
        const c = frame.to(panel.z);
        c[dim] = Number(slider.value);
        panel.moveTo(frame.from(c));
      });
      return label;
    }),
  );
}

/** Let the sliders stand where a latent is, in the coordinates of the plane; one may lie beyond all codes. */
function moveSliders(panel, c) {
  panel.element.querySelectorAll(".sliders input").forEach((slider) => {
    const value = c[Number(slider.dataset.dim)];
    if (value < slider.min) slider.min = value;
    if (value > slider.max) slider.max = value;
    if (document.activeElement !== slider || Math.abs(slider.value - value) > 0.02) slider.value = value;
    slider.nextElementSibling.textContent = written(value);
  });
}
