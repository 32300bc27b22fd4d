"use strict";
// The page: one panel a run, the theme, and the keys, which are those of the panel that was used last.

let panels = [];
let active;
const ready = start();

async function start() {
  const told = document.getElementById("runs");
  if (!("DecompressionStream" in window)) {
    document.querySelector("main").textContent =
      "This browser is too old for this page: it takes Chrome 80, Firefox 113, Safari 16.4 or later.";
    return;
  }
  const runs = await unpacked(JSON.parse(told.textContent));
  told.textContent = ""; // megabytes that are no longer needed
  panels = runs.map((run) => {
    const copy = document.getElementById("panel").content.cloneNode(true);
    const element = copy.firstElementChild;
    document.querySelector("main").append(copy);
    return new Panel(run, element);
  });
  active = panels[0];
  for (const panel of panels)
    for (const event of ["pointerenter", "focusin"]) panel.element.addEventListener(event, () => (active = panel));
  document.querySelector("main").classList.toggle("several", panels.length > 1);
  if (panels.length > 1) KEYS.s = addSwitch(document.querySelector(".mirror"), new Mirror(panels));
  document.addEventListener("keydown", onKey);
}

// Dark and light: the system's choice until the button was pressed.
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  panels.forEach((panel) => panel.resize());
}
let chosen = false;
dark.addEventListener("change", () => chosen || setTheme(dark.matches ? "dark" : "light"));
setTheme(dark.matches ? "dark" : "light");
function toggleTheme() {
  chosen = true;
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

const help = document.getElementById("help");
const KEYS = {
  ArrowLeft: (size) => active.step(-size, 0),
  ArrowRight: (size) => active.step(size, 0),
  ArrowUp: (size) => active.step(0, size),
  ArrowDown: (size) => active.step(0, -size),
  l: () => active.toggleLine(),
  v: () => active.setView(active.view === "sheet" ? "points" : "sheet"),
  w: () => active.whiten(),
  p: () => active.drawSamples(),
  i: () => active.drawing.take(),
  c: () => active.pad.clear(),
  m: () => active.pad.centre(),
  s: () => {}, // with several runs
  t: toggleTheme,
  Escape: () => active.removeLine(),
  "?": () => help.showModal(),
};

function onKey(event) {
  if (help.open || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const inSlider = event.target.matches("input") && event.key.startsWith("Arrow");
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (act && !inSlider) {
    act(event.shiftKey ? 5 : 1);
    event.preventDefault();
  } else if (/^\d$/.test(event.key)) {
    active.setLabel(Number(event.key));
  }
}

document.getElementById("theme").addEventListener("click", toggleTheme);
document.getElementById("keys").addEventListener("click", () => help.showModal());
help.addEventListener("click", (event) => event.target === help && help.close());
