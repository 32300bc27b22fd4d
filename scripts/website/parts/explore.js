"use strict";
// Trained runs, explored by hand: what `scripts/explore.py` writes, within the page.

live.part("explore", async (element) => {
  if (tooOld()) throw new Error(tooOld());
  const runs = await Promise.all(element.dataset.runs.split(" ").map((name) => live.described(name)));
  const holder = element.querySelector(".panels");
  const explorer = new Explorer(holder, runs, element.querySelector(".mirror"));
  element.explorer = explorer;
  holder.addEventListener("keydown", (event) => explorer.onKey(event) && event.preventDefault());
  live.onTheme(() => explorer.panels.forEach((panel) => panel.resize()));
});
