"use strict";
// The page of an explorer alone: its runs, the theme, and the help.

let explorer;
const ready = start();

async function start() {
  const told = document.getElementById("runs");
  const main = document.querySelector("main");
  main.textContent = tooOld();
  if (main.textContent) return;
  const runs = await unpacked(JSON.parse(told.textContent));
  told.textContent = ""; // megabytes that are no longer needed
  explorer = new Explorer(main, runs, document.querySelector(".mirror"));
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if (help.open) return;
  if (event.key.toLowerCase() === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) toggleTheme();
  else if (event.key === "?") help.showModal();
  else if (explorer.onKey(event)) event.preventDefault();
}

// Dark and light: the system's choice until the button was pressed.
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  explorer?.panels.forEach((panel) => panel.resize());
}
let chosen = false;
dark.addEventListener("change", () => chosen || setTheme(dark.matches ? "dark" : "light"));
setTheme(dark.matches ? "dark" : "light");
function toggleTheme() {
  chosen = true;
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

const help = document.getElementById("help");
document.getElementById("theme").addEventListener("click", toggleTheme);
document.getElementById("keys").addEventListener("click", () => help.showModal());
help.addEventListener("click", (event) => event.target === help && help.close());
