"use strict";
// A film whose frames lie below each other in one picture.

live.part("film", async (element) => {
  const FRAME = 160; // milliseconds
  const screen = element.querySelector(".film");
  const slider = element.querySelector("input");
  const button = element.querySelector("button");
  const last = Number(slider.max);
  const picture = new Image();
  picture.src = `${live.here}film.avif`;
  await picture.decode();
  screen.style.backgroundImage = `url("${picture.src}")`;
  screen.style.aspectRatio = `${picture.naturalWidth} / ${picture.naturalHeight / (last + 1)}`;
  const show = (epoch) => {
    slider.value = epoch;
    slider.nextElementSibling.textContent = epoch;
    screen.style.backgroundPositionY = `${(100 * epoch) / last}%`;
  };
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Pause";
    if (Number(slider.value) === last) show(0);
    timer = setInterval(() => (Number(slider.value) < last ? show(Number(slider.value) + 1) : stop()), FRAME);
  });
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  show(0);
});
