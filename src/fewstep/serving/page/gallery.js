// Gallery: pictures of one seed after the other, of one model or of all side by side, without an end.

import * as api from "./api.js";
import { affordable } from "./opening.js";
import { blobOf, bytesOf, download, settingsOf } from "./png.js";
import { Runner, chips, classes, count, el, limit, milliseconds, picture, place, stepLimit, values, whole } from "./widgets.js";

const FIRST = 4; // seeds at first; then as many as come
const PAUSE = 1.5; // in so many seconds,
const MOST = 48; // but no more than these
const NEAR = 600; // pixels below what is seen in which pictures are there before they are scrolled to
const NEIGHBOURS = 8;
const WIDE = matchMedia("(min-width: 68rem)"); // where the selected picture stands beside the wall

export class Gallery {
  constructor(app, section) {
    this.app = app;
    this.section = section;
    this.form = section.querySelector("form.controls");
    this.wall = section.querySelector(".wall");
    this.detail = section.querySelector(".detail");
    this.near = section.querySelector(".neighbours");
    this.items = [];
    this.runner = new Runner(this.form, (signal, say) => this.begin(signal, say));
    const several = app.models.length > 1;
    const shown = this.form.querySelector(".of");
    shown.hidden = !several;
    section.querySelector("[data-act=beside]").hidden = !several;
    if (several) shown.append(chips("of", [["one", "this model"], ["all", "all, from the same noise"]], "one"));
    section.addEventListener("click", (event) => this.act(event.target.dataset?.act));
    const end = section.querySelector(".end-of-wall");
    new IntersectionObserver(([seen]) => this.reach(seen.isIntersecting), { rootMargin: `${NEAR}px` }).observe(end);
  }

  model(model) {
    classes(this.form.querySelector(".classes"), model, { all: true });
    limit(this.form.elements.steps, stepLimit(model), model.default_steps);
    this.runner.controller?.abort();
    this.loading?.abort();
    if (this.items.length) this.clear();
    setTimeout(() => this.on && this.open()); // when what was going on has ended
  }

  shown(on) {
    this.on = on;
    if (on) this.open();
  }

  /** What is seen before anything was asked for. */
  async open() {
    if (this.items.length || this.runner.controller || this.opening) return;
    this.opening = true;
    const model = this.app.model;
    const some = model.seconds_per_image === undefined || (await affordable(model, 1));
    this.opening = false;
    if (some && this.on && !this.items.length && model === this.app.model) this.runner.run();
  }

  restore() {
    return this.runner.run();
  }

  clear() {
    this.items = [];
    this.selected = null;
    this.wall.replaceChildren();
    this.draw();
  }

  /** The models whose pictures stand side by side. */
  models(settings) {
    return settings.of === "all" ? this.app.models : [this.app.model];
  }

  async begin(signal, say) {
    const settings = values(this.form);
    const seed = whole(settings, "seed", "The first seed");
    this.loading?.abort();
    this.loading = null;
    this.clear();
    const models = this.models(settings);
    this.series = { next: seed, first: seed, models, settings, pace: null };
    this.app.remember("gallery", values(this.form));
    this.wall.className = models.length > 1 ? "wall beside" : "wall grid";
    this.wall.style.setProperty("--models", models.length);
    if (models.length > 1) this.wall.append(...models.map((model) => el("h3", {}, model.id, el("small", {}, this.how(model)))));
    await this.more(signal, say);
    setTimeout(() => this.reach(this.reached)); // when the form is no longer busy
  }

  /** Whether the end of the wall is nearly seen: then there is to be more. */
  async reach(reached) {
    this.reached = reached;
    if (!reached || !this.on || !this.items.length || this.runner.controller || this.loading) return;
    const loading = (this.loading = new AbortController());
    try {
      while (this.reached && this.on && !loading.signal.aborted) await this.more(loading.signal, (text) => this.runner.say(text));
    } catch (error) {
      if (!loading.signal.aborted) this.runner.fail(error);
    } finally {
      if (this.loading === loading) this.loading = null;
    }
  }

  /** The next seeds; as many as come soon. */
  async more(signal, say) {
    const { series } = this;
    const number = series.pace ? Math.max(1, Math.min(MOST, Math.round(PAUSE / series.pace))) : FIRST;
    const seeds = Array.from({ length: number }, (_, i) => series.next + i);
    series.next += number;
    const items = seeds.flatMap((seed) => series.models.map((model) => this.item(seed, model)));
    this.items.push(...items);
    this.wall.append(...items.map((item) => this.tile(item)));
    this.draw();
    const began = performance.now();
    try {
      await Promise.all(items.map((item) => this.fill(item, signal, say)));
    } catch (error) {
      for (const item of items.filter((one) => !one.done)) item.tile.remove();
      this.items = this.items.filter((item) => item.done || !items.includes(item));
      series.next = Math.max(series.first, ...this.items.map((item) => item.seed + 1));
      this.draw();
      throw error;
    }
    signal.throwIfAborted();
    const seconds = (performance.now() - began) / 1000;
    series.pace = seconds / number;
    const { first, next } = series;
    say(`Seeds ${first} to ${next - 1}; ${milliseconds(seconds / items.length)} per picture`);
    if (!this.selected && WIDE.matches) this.select(this.items[0]);
  }

  item(seed, model) {
    const { settings } = this.series;
    const names = model.classes;
    const wanted = names?.includes(settings.class) ? settings.class : null;
    return { seed, index: 0, model: model.id, class: names ? wanted ?? names[seed % names.length] : null, steps: this.stepsOf(model) };
  }

  /** What a model takes: the steps of the form where it is the chosen one, else its own. */
  stepsOf(model) {
    return model === this.app.model ? Number(this.series.settings.steps) : model.default_steps;
  }

  /** How a model's column is made. */
  how(model) {
    const alike = String(model.shape) === String(this.series.models[0].shape);
    return count(this.stepsOf(model), "step") + (alike ? "" : ", other noise: its images are of another size");
  }

  tile(item) {
    const button = el("button", { type: "button", className: "tile", title: describe(item) });
    button.append(place());
    button.addEventListener("click", () => this.select(item));
    item.button = button;
    item.tile = el("div", { className: "seeded" }, button, el("small", {}, `seed ${item.seed}`));
    return item.tile;
  }

  async fill(item, signal, say) {
    const { model, seed, steps } = item;
    const answer = await api.generate({ model, seed, n: 1, steps, class: item.class }, { signal, say });
    const [{ b64_json }] = answer.data;
    Object.assign(item, { b64_json, done: true, steps: answer.steps });
    item.button.replaceChildren(picture(b64_json, describe(item)));
    if (item === this.selected) this.show();
  }

  draw() {
    const none = this.items.length === 0;
    this.section.querySelector(".stage > .empty").hidden = !none;
    this.section.querySelector(".split").hidden = none;
    this.detail.hidden = !this.selected;
  }

  /** Choose a picture, or none. */
  select(item) {
    this.selected?.button.setAttribute("aria-pressed", "false");
    this.selected = item;
    item?.button.setAttribute("aria-pressed", "true");
    this.draw();
    if (item) this.show();
  }

  show() {
    const item = this.selected;
    const find = (name) => this.detail.querySelector(name);
    find(".large").replaceChildren(item.done ? picture(item.b64_json, describe(item)) : place());
    find(".caption").textContent = describe(item);
    this.detail.querySelectorAll("button").forEach((button) => (button.disabled = !item.done));
    const missing = this.missing(item);
    this.near.querySelector("button").hidden = Boolean(missing);
    this.near.querySelector(".why").textContent = missing ?? "";
    if (this.near.of !== item) this.near.querySelector("ol").replaceChildren();
    if (item.done) find(".settings pre").textContent = JSON.stringify(settingsOf(bytesOf(item.b64_json)), null, 2);
  }

  /** Why the nearest training images cannot be shown, if so. */
  missing(item) {
    if (!api.neighbours) return "The training images are not part of this page.";
    const why = this.app.find(item.model).training_images_missing;
    return why && `The training images are not at hand. ${why}`;
  }

  async neighbours() {
    const item = this.selected;
    const button = this.near.querySelector("button");
    const why = this.near.querySelector(".why");
    button.disabled = true;
    why.textContent = "Looking through the training images …";
    try {
      const answer = await api.neighbours({ model: item.model, image: item.b64_json, n: NEIGHBOURS });
      if (item !== this.selected) return;
      this.near.of = item;
      this.near.querySelector("ol").replaceChildren(...answer.data.map(neighbour));
      why.textContent =
        `Of ${answer.images.toLocaleString("en")} training images (${answer.source}). Below each: by how many of 255 grey levels it differs (root mean square).`;
    } catch (error) {
      if (item === this.selected) why.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  }

  act(act) {
    const item = this.selected;
    if (act === "close") this.select(null);
    if (act === "neighbours") this.neighbours();
    if (act === "download") download(blobOf(item.b64_json), `${item.model}-seed${item.seed}-0.png`);
    if (act === "edit") this.app.edit.takeGenerated(item);
    if (act === "from" || act === "to") this.app.interpolate.take(act, item);
    if (act === "seed") this.app.generate.take(item);
    if (act === "beside") this.beside(item);
  }

  /** The same seeds, from the selected one on, through all models. */
  beside(item) {
    this.form.elements.seed.value = item.seed;
    const all = this.form.querySelector("[name=of][value=all]");
    if (all) all.checked = true;
    this.runner.run();
  }
}

const describe = (item) =>
  `${item.model} · seed ${item.seed}${item.class === null ? "" : ` · class ${item.class}`} · ${count(item.steps, "step")}`;

function neighbour({ b64_json, distance, index, mirrored, class: name }) {
  const about = [`training image ${index}`, name !== null && `class ${name}`, mirrored && "mirrored"].filter(Boolean).join(", ");
  return el("li", { title: about }, picture(b64_json, about), distance.toFixed(1));
}
