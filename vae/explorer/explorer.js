"use strict";
// Runs side by side in an element of any page. Keys are of the panel that was used last.

/** What the page needs of a browser, or a line that says it is too old. */
const tooOld = () =>
  "DecompressionStream" in window ? "" : "This browser is too old for this page: it takes Chrome 80, Firefox 113, Safari 16.4 or later.";

class Explorer {
  /** Runs as `unpacked` gives them; `switches` is the element with the buttons for how the others follow. */
  constructor(holder, runs, switches) {
    for (let missing = runs.length - holder.children.length; missing > 0; missing--)
      holder.insertAdjacentHTML("beforeend", PANEL);
    this.panels = [...holder.children].map((element, i) => new Panel(runs[i], element));
    holder.classList.toggle("several", runs.length > 1);
    this.active = this.panels[0];
    for (const panel of this.panels)
      for (const event of ["pointerenter", "focusin"])
        panel.element.addEventListener(event, () => (this.active = panel));
    this.switchMode = runs.length > 1 ? addSwitch(switches, new Mirror(this.panels)) : () => {};
  }

  /** Do what a key stands for; says whether it stands for anything. */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return false;
    const inSlider = event.target.matches("input") && event.key.startsWith("Arrow");
    const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (inSlider || (!act && !/^\d$/.test(event.key))) return false;
    if (act) act(this, event.shiftKey ? 5 : 1);
    else this.active.setLabel(Number(event.key));
    return true;
  }
}

const KEYS = {
  ArrowLeft: ({ active }, size) => active.step(-size, 0),
  ArrowRight: ({ active }, size) => active.step(size, 0),
  ArrowUp: ({ active }, size) => active.step(0, size),
  ArrowDown: ({ active }, size) => active.step(0, -size),
  l: ({ active }) => active.toggleLine(),
  v: ({ active }) => active.setView(active.view === "sheet" ? "points" : "sheet"),
  w: ({ active }) => active.whiten(),
  p: ({ active }) => active.drawSamples(),
  i: ({ active }) => active.drawing.take(),
  c: ({ active }) => active.pad.clear(),
  m: ({ active }) => active.pad.centre(),
  s: (explorer) => explorer.switchMode(),
  Escape: ({ active }) => active.removeLine(),
};
