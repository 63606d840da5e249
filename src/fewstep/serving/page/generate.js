// Generate: a grid of images, the steps of the selected one, and variations of it.

import * as api from "./api.js";
import { asked, askedOf, fillAsked, offer } from "./asked.js";
import { blobOf, bytesOf, download, settingsOf, sheet, squared } from "./png.js";
import { curl, run, terminal, words } from "./terminal.js";
import { Runner, classes, count, fill, limit, milliseconds, most, picture, place, press, reveal, stepLimit, tiles, values, whole } from "./widgets.js";

const IMAGES = 64;
const VARIATIONS = 6;

export class Generate {
  constructor(app, section) {
    this.app = app;
    this.section = section;
    this.form = section.querySelector("form.controls");
    [this.grid, this.varied] = section.querySelectorAll(".grid");
    this.detail = section.querySelector(".detail");
    this.items = [];
    this.variations = [];
    this.runner = new Runner(this.form, (signal, say) => this.generate(signal, say));
    this.varier = new Runner(section.querySelector("form.vary"), (signal, say) => this.vary(signal, say));
    section.addEventListener("click", (event) => this.act(event.target.dataset?.act));
    this.form.addEventListener("input", () => {
      this.touched = true;
      this.commands();
    });
  }

  model(model) {
    classes(this.form.querySelector(".classes"), model, { all: true });
    const two = Math.max(model.default_steps, Math.min(2, model.max_steps)); // a strip needs two steps
    limit(this.form.elements.steps, stepLimit(model), this.solves === model.solves ? undefined : two);
    this.solves = model.solves;
    limit(this.form.elements.n, most(model, IMAGES));
    this.varier.button.textContent = this.varier.label = `Make ${count(most(model, VARIATIONS), "variation")}`;
    offer(this.form, model);
    this.form.querySelector("[data-steps-note]").textContent =
      model.solves ? "steps of the solver" : "network evaluations per image";
    this.commands();
  }

  request() {
    const settings = values(this.form);
    return {
      model: this.app.model.id,
      n: Number(settings.n),
      seed: whole(settings, "seed", "The seed"),
      class: settings.class || null,
      ...asked(settings, this.app.model),
    };
  }

  /** Pictures that nobody asked for; what is asked for comes first. */
  async open(n) {
    if (this.touched || this.runner.controller || this.items.length) return;
    this.opening = new AbortController();
    fill(this.form, { n: String(n) });
    try {
      await this.generate(this.opening.signal, (text) => this.runner.say(text), { link: false });
    } catch (error) {
      if (this.opening.signal.aborted) this.runner.say("");
      else this.runner.fail(error);
    }
  }

  /** A picture of the gallery: its seed, with more pictures of it. */
  take(item) {
    this.app.use(item.model);
    this.app.go("generate");
    fill(this.form, { seed: item.seed, class: item.class ?? "", steps: item.steps });
    fillAsked(this.form, askedOf(item));
    this.form.dispatchEvent(new Event("input", { bubbles: true }));
    this.runner.run();
  }

  async generate(signal, say, how) {
    if (!how) this.opening?.abort();
    const request = this.request();
    const { n, seed } = request;
    const { items, variations, selected, submitted } = this;
    this.submitted = values(this.form);
    this.expect(Array.from({ length: n }, (_, index) => ({ index, seed, steps: request.steps ?? 1, model: request.model, request, strip: [] })), how);
    const mine = this.items;
    const began = performance.now();
    say("Waiting for the first step");
    const onPartial = ({ index, step, steps, b64_json }) => {
      this.items[index].steps = steps;
      this.step(index, step, b64_json);
      if (index === n - 1) say(`Step ${step} of ${steps}`);
    };
    let answer;
    try {
      answer = await api.generate({ ...request, strip: carries(this.app.model, request) }, { signal, onPartial, say });
    } catch (error) {
      if (this.items === mine) Object.assign(this, { items, variations, selected, submitted }); // what was there before comes back
      this.redraw(how);
      throw error;
    }
    answer.data.forEach((image, i) => Object.assign(this.items[i], image, { class: image.class ?? null, steps: answer.steps, done: true }));
    this.answer = { ...request, steps: answer.steps, seconds: answer.seconds };
    this.redraw(how);
    const total = (performance.now() - began) / 1000;
    say(`${count(n, "image")} in ${milliseconds(answer.seconds ?? total)}`);
  }

  /** Images that were made before, with the request that they answer. */
  seen({ request, answer }) {
    const said = Object.entries(request).filter(([, value]) => value !== null).map(([name, value]) => [name, String(value)]);
    this.submitted = { ...values(this.form), ...Object.fromEntries(said) };
    this.expect(answer.data.map((image) => ({ ...image, ...request, request, steps: answer.steps, done: true })), { link: false });
    this.answer = { ...request, steps: answer.steps };
  }

  /** Empty places for the images that will come; the same one stays selected where it can. */
  expect(items, how) {
    this.items = items;
    this.varier.drop();
    this.variations = [];
    const number = Math.min(this.selected?.index ?? 0, items.length - 1);
    this.selected = items[number];
    this.redraw(how);
  }

  step(index, step, b64) {
    const item = this.items[index];
    item.strip[step - 1] = b64;
    item.b64_json = b64;
    this.grid.children[index].replaceChildren(picture(b64, this.describe(item)));
    if (item === this.selected) this.show();
  }

  /** After a link: with the image selected that was. */
  restore({ image }) {
    this.selected = { index: Number(image) || 0 };
    return this.runner.run();
  }

  redraw(how) {
    const choose = (item) => this.select(item);
    tiles(this.grid, this.items, (item) => this.describe(item), choose);
    tiles(this.varied, this.variations, (item) => this.describe(item), choose);
    this.section.querySelector(".variations").hidden = this.variations.length === 0;
    this.section.querySelector(".stage > .empty").hidden = this.items.length > 0;
    this.section.querySelector(".split").hidden = this.items.length === 0;
    this.section.querySelector("[data-act=sheet]").disabled = !this.items.every((item) => item.done);
    if (this.items.length) this.select(this.selected, how);
  }

  describe(item) {
    if (!item) return "";
    const what = item.of === undefined ? `image ${item.index}` : `variation ${item.index} of image ${item.of}`;
    return what + (item.class === null || item.class === undefined ? "" : `, class ${item.class}`);
  }

  select(item, { link = true } = {}) {
    this.selected = item;
    press(this.grid, this.items.indexOf(item));
    press(this.varied, this.variations.indexOf(item));
    if (link && item.of === undefined) this.app.remember("generate", this.submitted, { model: item.model, image: item.index });
    this.show();
  }

  /** The selected image at large. */
  show() {
    const item = this.selected;
    const find = (name) => this.detail.querySelector(name);
    find(".large").replaceChildren(item.b64_json ? picture(item.b64_json, this.describe(item)) : place());
    find(".caption").textContent =
      `${item.model} · ${this.describe(item)} · seed ${item.seed} · ${item.of === undefined ? count(item.steps, "step") : `strength ${item.strength}`}`;
    find(".strip").hidden = item.of !== undefined;
    find(".strip ol").replaceChildren(...this.strip(item));
    this.detail.querySelectorAll("button").forEach((button) => (button.disabled = !item.done));
    const model = this.app.find(item.model);
    const reasons = [];
    if (item.of !== undefined) {
      reasons.push("A variation is not made from noise alone, so that it is no end of an interpolation.");
      for (const act of ["from", "to"]) find(`[data-act=${act}]`).disabled = true;
    }
    if (model && !model.tasks.includes("vary")) {
      reasons.push("Variations need a consistency model.");
      find(".vary button").disabled = true;
    }
    else if (item.request?.guidance !== undefined) reasons.push("Variations have the model's own guidance.");
    find(".why").textContent = item.done ? reasons.join(" ") : "";
    if (item.done)
      find(".settings pre").textContent = JSON.stringify(settingsOf(bytesOf(item.b64_json)), null, 2);
    find(".settings").hidden = !item.done;
  }

  /** One place per step, filled as far as the image has come. */
  strip(item) {
    return Array.from({ length: item.of === undefined ? item.steps : 0 }, (_, k) => {
      const cell = document.createElement("li");
      const b64 = item.strip?.[k];
      cell.append(b64 ? picture(b64, `after step ${k + 1}`) : place(), String(k + 1));
      return cell;
    });
  }

  async vary(signal, say) {
    const item = this.selected;
    const of = item.of ?? item.index;
    const strength = Number(values(this.varier.form).strength);
    const n = most(this.app.find(item.model), VARIATIONS);
    const { prompt } = askedOf(item); // its sampler is not that of edits
    const fields = { model: item.model, task: "vary", n, strength, seed: item.seed, class: item.class, prompt };
    say("Varying");
    const answer = await api.edit(fields, { image: blobOf(item.b64_json) }, { signal, say });
    this.variations = answer.data.map((image, index) => ({
      ...image, index, of, strength, class: item.class, seed: item.seed, model: item.model, request: item.request, done: true,
    }));
    this.section.querySelector(".variations h2").textContent = `Variations of image ${of}, strength ${strength}`;
    this.redraw();
    reveal(this.section.querySelector(".variations"));
    say(`${count(n, "variation")} in ${milliseconds(answer.seconds)}`);
  }

  async act(act) {
    const item = this.selected;
    const name = item && `${item.model}-seed${item.seed}-${item.index}`;
    if (act === "download") download(blobOf(item.b64_json), `${name}.png`);
    if (act === "edit") this.app.edit.takeGenerated(item);
    if (act === "from" || act === "to") this.app.interpolate.take(act, item);
    if (act === "sheet")
      download(await sheet(squared(this.items.map((i) => i.b64_json)), this.answer), `${item.model}-seed${item.seed}.png`);
  }

  commands() {
    let request;
    try {
      request = this.request();
    } catch {
      return; // the error is shown when the form is sent
    }
    const { n, seed, steps, sampler, guidance_interval } = request;
    const between = guidance_interval ? ` --guidance-interval ${guidance_interval.join(" ")}` : "";
    const flags = words({ "-n": n, "--sampler": sampler, "--steps": steps, "--guidance": request.guidance, "--seed": seed, "--label": request.class, "--prompt": request.prompt, "-o": "samples.png" }) + between;
    terminal(this.section.querySelector(".terminal"), [
      ["Command line", `fewstep sample ${run(this.app.model)} ${flags}`],
      ["HTTP", curl("v1/images/generations", request)],
    ]);
  }
}

/** Whether an answer may carry the images after every step; they also come one by one. */
const carries = ({ max_pixels, shape: [, H, W] }, { n, steps }) => !(n * (steps ?? 1) * H * W > max_pixels);
