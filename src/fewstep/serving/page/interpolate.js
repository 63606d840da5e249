// Interpolate: frames between two noises, fetched once, and a slider through them.

import * as api from "./api.js";
import { asked, askedOf, fillAsked, offer } from "./asked.js";
import { blobOf, download, sheet, squared } from "./png.js";
import { curl, run, terminal, words } from "./terminal.js";
import { Runner, classes, count, limit, milliseconds, most, picture, press, stepLimit, tiles, values, whole } from "./widgets.js";

const FPS = 12;
const FRAMES = 64;

export class Interpolate {
  constructor(app, section) {
    this.app = app;
    this.section = section;
    this.form = section.querySelector("form");
    this.slider = section.querySelector("#frame");
    this.player = section.querySelector("[data-act=play]");
    this.frames = [];
    this.runner = new Runner(this.form, (signal, say) => this.fetch(signal, say));
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    section.addEventListener("click", (event) => this.act(event.target.dataset?.act));
    this.form.addEventListener("input", () => this.commands());
  }

  model(model) {
    classes(this.form.querySelector(".classes"), model, { all: false });
    limit(this.form.elements.steps, stepLimit(model), model.default_steps);
    limit(this.form.elements.frames, most(model, FRAMES));
    offer(this.form, model);
    this.commands();
  }

  /** An image from the Generate tab becomes one end. */
  take(end, item) {
    const { model, seed, index, class: name, steps } = item;
    this.app.use(model);
    const controls = this.form.elements;
    controls[`${end}_seed`].value = seed;
    controls[`${end}_index`].value = index;
    controls.steps.value = steps;
    if (name !== null && controls.class) controls.class.value = name;
    fillAsked(this.form, askedOf(item));
    this.form.dispatchEvent(new Event("input", { bubbles: true }));
    this.app.go("interpolate");
    this.runner.run();
  }

  request() {
    const settings = values(this.form);
    const end = (name) => ({
      seed: whole(settings, `${name}_seed`, "The seed"),
      index: whole(settings, `${name}_index`, "The number of an image"),
    });
    return {
      model: this.app.model.id,
      from: end("from"),
      to: end("to"),
      frames: Number(settings.frames),
      class: settings.class || null,
      ...asked(settings, this.app.model),
    };
  }

  async fetch(signal, say) {
    const request = this.request();
    this.app.remember("interpolate", values(this.form));
    say("Interpolating");
    this.pause();
    const answer = await api.interpolate(request, { signal, say });
    this.answer = request;
    this.frames = answer.data;
    this.section.querySelector(".stage > .empty").hidden = true;
    this.section.querySelector(".film").hidden = false;
    const reel = this.section.querySelector(".reel");
    tiles(reel, this.frames, () => "", (frame) => this.show(this.frames.indexOf(frame)));
    reel.querySelectorAll("button").forEach((button) => (button.tabIndex = -1));
    limit(this.slider, this.frames.length - 1, 0);
    this.show(0);
    say(`${count(this.frames.length, "frame")} in ${milliseconds(answer.seconds)}`);
  }

  show(number) {
    this.slider.value = number;
    const last = this.frames.length - 1;
    const text = `frame ${number + 1} of ${last + 1}`;
    this.section.querySelector(".transport output").value = `${number + 1} / ${last + 1}`;
    this.slider.setAttribute("aria-valuetext", text);
    this.section.querySelector(".large").replaceChildren(picture(this.frames[number].b64_json, text));
    press(this.section.querySelector(".reel"), number);
  }

  play() {
    this.player.textContent = "Pause";
    this.player.setAttribute("aria-pressed", "true");
    let step = Number(this.slider.value) >= this.frames.length - 1 ? -1 : 1;
    this.timer = setInterval(() => {
      let next = Number(this.slider.value) + step;
      if (next < 0 || next >= this.frames.length) {
        step = -step; // there and back again
        next += 2 * step;
      }
      this.show(next);
    }, 1000 / FPS);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.player.textContent = "Play";
    this.player.setAttribute("aria-pressed", "false");
  }

  async act(act) {
    const images = this.frames.map((frame) => frame.b64_json);
    const number = Number(this.slider.value);
    const name = this.answer && `${this.answer.model}-interpolation`;
    if (act === "play") this.timer ? this.pause() : this.play();
    if (act === "download") download(blobOf(images[number]), `${name}-${number}.png`);
    if (act === "sheet") download(await sheet(squared(images), this.answer), `${name}.png`);
  }

  line({ from, to, frames, steps, sampler, guidance, guidance_interval: interval, class: label, prompt }) {
    if (prompt) return "# The command line interpolates without a prompt.";
    if (from.seed !== to.seed) return "# The command line interpolates between two images of one seed: give both ends the same.";
    const flags = words({
      "--from": from.index, "--to": to.index, "--frames": frames, "--sampler": sampler, "--steps": steps,
      "--guidance": guidance, "--seed": from.seed, "--label": label, "-o": "film.gif",
    });
    const between = interval ? ` --guidance-interval ${interval.join(" ")}` : "";
    return `fewstep interpolate ${run(this.app.model)} ${flags}${between}`;
  }

  commands() {
    let request;
    try {
      request = this.request();
    } catch {
      return; // the error is shown when the form is sent
    }
    terminal(this.section.querySelector(".terminal"), [
      ["Command line", this.line(request)],
      ["HTTP", curl("v1/images/interpolations", request)],
    ]);
  }
}
