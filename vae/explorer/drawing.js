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
    this.encoded = drawn ? (this.given ?? this.#found()) : null;
    panel.find(".draw").classList.toggle("empty", !drawn);
    const again = drawn ? panel.decode(this.encoded.mean) : new Float32Array(image.length);
    showImages(panel.find(".reconstruction"), [again], panel.shape);
    panel.find(".reconstruction + figcaption").textContent = this.given ? "of the same code" : "reconstructed";
    this.write();
    panel.later("overlay");
  }

  /** What the encoder says; of an autoencoder, which has no KL, only where: nobody has trained its σ. */
  #found() {
    const { model, label, run } = this.panel;
    const { mean, factor } = model.encode(this.image, label);
    return run.kl ? { mean, factor } : { mean };
  }

  /** Say where it is encoded, in the coordinates of the plane. */
  write() {
    const { panel, encoded } = this;
    const where = panel.find(".draw .where");
    if (!encoded) return (where.textContent = "");
    const { frame, dims } = panel.plane;
    const c = frame.to(encoded.mean);
    const covariance = encoded.factor && frame.covariance(encoded.factor, dims);
    const within = (i) => (covariance ? ` ± ${written(Math.sqrt(covariance[i][i]))}` : "");
    const parts = dims.map((dim, i) => `${frame.name(dim)} = ${written(c[dim])}${within(i)}`);
    where.textContent = parts.join("   ");
  }
}
