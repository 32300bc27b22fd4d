"use strict";
// The parts of a page that move. Each is loaded when the reader comes near it, by scripts, because a page that was opened
// by a double click may not read files otherwise.

const live = {
  here: new URL(".", document.currentScript.src).href,
  // The files that a part takes, by its name in the page.
  needs: {
    reparameterisation: ["plot", "reparameterisation"],
    elbo: ["plot", "elbo"],
    kl: ["plot", "kl"],
    film: ["film"],
    beta: ["explorer", "beta"],
    codes: ["explorer", "plot", "codes"],
    explore: ["explorer", "explore"],
  },
  starts: {}, // how each part begins, as its file says
  received: {}, // runs, as their files say
  loaded: {}, // promises of files
  unpacked: {}, // and of runs

  /** Called by a part's file. */
  part(name, start) {
    this.starts[name] = start;
  },

  /** Called by a run's file. */
  run(name, description) {
    this.received[name] = description;
  },

  load(file) {
    return (this.loaded[file] ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `${this.here}${file}.js`;
      script.onload = done;
      script.onerror = () => failed(new Error(`${file}.js is missing`));
      document.head.append(script);
    }));
  },

  /** A run with its networks, once for all parts. */
  described(name) {
    return (this.unpacked[name] ??= this.load(name).then(() => unpacked(this.received[name])));
  },

  async begin(element) {
    const { part } = element.dataset;
    try {
      for (const file of this.needs[part]) await this.load(file);
      await this.starts[part](element);
      element.classList.add("ready");
    } catch (error) {
      element.dataset.error = `This part could not be loaded: ${error.message}.`;
      throw error;
    }
  },

  /** Call this whenever the page becomes dark or light. */
  onTheme(act) {
    new MutationObserver(act).observe(document.body, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", act);
  },
};

const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      live.begin(target);
    }
  },
  { rootMargin: "-20px 0px" }, // not for an edge that is just in view when the page opens
);
document.querySelectorAll(".live").forEach((element) => near.observe(element));
