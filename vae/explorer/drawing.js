"use strict";
// The card of a drawing: the pad, where it is encoded, and what the model makes of it.

class Drawing {
  constructor(panel) {
    this.panel = panel;
    this.label = undefined; // the class of a test image
    this.given = null; // the code that another run found for it
    this.pad = new Pad(panel.find(".pad"), panel.shape, () => {
      this.label = undefined;
      this.given = null;
      this.encode();
      panel.share("drawing");
    });
    this.encode();
  }

  get image() {
    return this.pad.image;
  }

  /** Take a test image with its class, and go to its code. */
  take() {
    const size = this.image.length;
    const { values, labels } = this.panel.run.images;
    const chosen = Math.floor(Math.random() * labels.length);
    const image = Float32Array.from(values.subarray(chosen * size, (chosen + 1) * size), (value) => value / 255);
    this.receive(image, labels[chosen]);
    this.panel.follow({ z: this.encoded.mean });
    this.panel.share("drawing");
  }

  /** Show an image of the test set, or one that was drawn in another panel, there with this code. */
  receive(image, label, code = null) {
    this.pad.show(image);
    this.label = label;
    this.given = code;
    this.panel.setLabel(label, false);
    this.encode();
  }

  /** Encode what is drawn. */
  encode() {
    const { panel, image } = this;
    const drawn = !this.pad.isEmpty;
    this.encoded = drawn ? (this.given ?? panel.model.encode(image, panel.label)) : null;
    panel.find(".draw").classList.toggle("empty", !drawn);
    const again = drawn ? panel.decode(this.encoded.mean) : new Float32Array(image.length);
    showImages(panel.find(".reconstruction"), [again], panel.shape);
    panel.find(".reconstruction + figcaption").textContent = this.given ? "of the same code" : "reconstructed";
    this.write();
    panel.later("overlay");
  }

  /** Say where it is encoded, in the coordinates of the plane. */
  write() {
    const { panel, encoded } = this;
    const where = panel.find(".draw .where");
    if (!encoded) return (where.textContent = "");
    const { frame, dims } = panel.plane;
    const c = frame.to(encoded.mean);
    const covariance = frame.covariance(encoded.factor, dims);
    const parts = dims.map((dim, i) => `${frame.name(dim)} = ${written(c[dim])} ± ${written(Math.sqrt(covariance[i][i]))}`);
    where.textContent = parts.join("   ");
  }
}
