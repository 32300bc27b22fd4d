"use strict";
// A copy of the decoded image beside the pointer, for as long as the image itself is out of view.

const ASIDE = 30; // pixels of the plane between the pointer and the copy, so that what lies under it stays free

class Peek {
  constructor(panel) {
    this.original = panel.find(".decoded canvas");
    this.canvas = document.createElement("canvas");
    this.canvas.className = "peek image";
    this.canvas.hidden = true;
    this.canvas.style.setProperty("--aspect", panel.element.style.getPropertyValue("--aspect"));
    panel.element.parentElement.append(this.canvas); // not in the panel, within which it would be fixed
    this.plane = panel.plane;
    const plane = panel.find(".marks");
    for (const event of ["pointerdown", "pointermove"]) plane.addEventListener(event, (moved) => this.follow(moved));
    for (const event of ["pointerleave", "pointerup", "pointercancel"])
      plane.addEventListener(event, ({ type, pointerType }) => {
        if (type !== "pointerup" || pointerType !== "mouse") this.canvas.hidden = true;
      });
  }

  follow({ clientX, clientY }) {
    const { top, bottom } = this.original.getBoundingClientRect();
    this.canvas.hidden = top >= 0 && bottom <= innerHeight;
    if (this.canvas.hidden) return;
    const { width, height } = this.canvas.getBoundingClientRect();
    const aside = ASIDE * this.plane.zoom;
    const left = clientX > innerWidth / 2 ? clientX - aside - width : clientX + aside;
    this.canvas.style.left = `${left}px`;
    this.canvas.style.top = `${Math.min(Math.max(clientY - height / 2, 4), innerHeight - height - 4)}px`;
  }

  show(image, shape) {
    if (!this.canvas.hidden) showImages(this.canvas, [image], shape);
  }
}
