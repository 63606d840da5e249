// Edit: a picture, a task of the model, and what comes of it, side by side.

import * as api from "./api.js";
import { askedOf } from "./asked.js";
import { packed, unpacked } from "./drawing.js";
import { Easel } from "./easel.js";
import { blobOf, download, pngOf, sheet } from "./png.js";
import { curlForm, run, terminal, words } from "./terminal.js";
import { Runner, chips, classes, count, el, limit, milliseconds, most, picture, press, reveal, stepLimit, tiles, values, whole } from "./widgets.js";

const TASKS = {
  inpaint: ["Inpaint", "Paint over what is to be made anew. All else stays, pixel for pixel.", "mask"],
  strokes: ["Strokes", "Draw with rough strokes of colour; the model turns them into an image.", "strokes"],
  outpaint: ["Outpaint", "Continue the picture beyond its edges."],
  superresolve: ["Super-resolve", "Enlarge the picture; the means of its new pixels stay its old ones."],
  colourise: ["Colourise", "Give a grey picture colours; its grey values stay."],
  deblur: ["Deblur", "Sharpen a picture that a Gaussian has blurred."],
  vary: ["Vary", "Make the picture anew, more or less like it."],
  denoise: ["Denoise", "Remove white noise, in one step."],
};
// Which settings a task has beside the model and the class.
const SETTINGS = {
  inpaint: ["fit"], strokes: ["strength", "fit"], vary: ["strength", "fit"], denoise: ["sigma"],
  outpaint: ["left", "top", "right", "bottom"], superresolve: ["factor", "fit"],
  colourise: ["fit"], deblur: ["blur", "fit"],
};
const SAMPLING = ["steps", "seed", "n"]; // of all but denoising
const STEPS = { strokes: 2, vary: 2 }; // else 8, as on the command line
const RESULTS = 16;
const LARGEST = 4096; // pixels on a side that the page opens

export class Edit {
  constructor(app, section) {
    this.app = app;
    this.section = section;
    this.form = section.querySelector("form");
    this.easel = new Easel(section.querySelector(".before"));
    this.after = section.querySelector(".after");
    this.runner = new Runner(this.form, (signal, say) => this.edit(signal, say));
    this.easel.onChange = () => this.commands();
    this.form.addEventListener("input", () => this.commands());
    this.form.addEventListener("change", (event) => event.target.name === "task" && this.choose());
    section.addEventListener("click", (event) => this.act(event.target.dataset));
    section.querySelector("[type=file]").addEventListener("change", (event) => this.upload(event.target.files[0]));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      app.go("edit");
      this.upload(event.dataTransfer.files[0]);
    });
  }

  get task() {
    return values(this.form).task;
  }

  model(model) {
    classes(this.form.querySelector(".classes"), model, { all: false });
    const able = (task) => model.tasks.includes(task);
    const chosen = able(this.task) ? this.task : Object.keys(TASKS).find(able);
    const options = Object.entries(TASKS).map(([task, [title]]) => [task, title]);
    const why = this.form.querySelector(".tasks .why");
    this.form.querySelector(".tasks .chips").replaceWith(chips("task", options, chosen, (task) => !able(task)));
    const missing = Object.keys(TASKS).filter((task) => !able(task)).map((task) => TASKS[task][0]);
    why.textContent = missing.length ? `${missing.join(", ")}: ${reason(model, missing)}` : "";
    this.easel.palette(model.shape[0] === 1);
    this.form.querySelector(".prompt").hidden = !model.prompts;
    this.form.elements.n.max = most(model, RESULTS);
    this.choose();
  }

  /** Show the settings of the chosen task alone. */
  choose() {
    const { task } = this;
    this.form.querySelector(".about").textContent = TASKS[task]?.[1] ?? "";
    for (const part of this.form.querySelectorAll("[data-for]"))
      part.hidden = !part.dataset.for.split(" ").includes(task);
    if (task !== "denoise") limit(this.form.elements.steps, stepLimit(this.app.model, 32), STEPS[task] ?? 8);
    this.form.elements.fit.value = ["superresolve", "deblur"].includes(task) ? "tile" : "resize";
    this.easel.show(TASKS[task]?.[2] ?? null);
    this.runner.button.disabled = !task;
    this.commands();
  }

  // Pictures

  async upload(file) {
    if (!file) return;
    this.runner.clear();
    try {
      const image = await createImageBitmap(file);
      if (Math.max(image.width, image.height) > LARGEST)
        throw new Error(`${file.name} has ${image.width} × ${image.height} pixels; at most ${LARGEST} on a side are opened.`);
      this.put(image, file, file.name);
    } catch (error) {
      const text = error.name === "InvalidStateError" ? `${file.name} is not a picture that the browser can open.` : error.message;
      this.runner.fail(new Error(text));
    }
    this.section.querySelector("[type=file]").value = "";
  }

  put(image, file, label, origin = "") {
    this.runner.drop(); // what is being made is of another picture
    this.easel.put(image);
    reveal(this.easel.root);
    this.file = file;
    this.form.elements.source.value = origin;
    const { width, height } = image;
    this.section.querySelector(".before figcaption span").textContent = `${label} · ${width} × ${height}`;
    this.show([]);
    this.commands();
  }

  blank() {
    const [, height, width] = this.app.model.shape;
    const canvas = el("canvas", { width, height });
    const context = canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    this.put(canvas, null, "blank", "blank");
  }

  /** A picture from the model itself, which a link can make again. */
  async generate() {
    this.runner.clear();
    this.runner.say("Generating a picture");
    try {
      const settings = values(this.form);
      const { id, default_steps } = this.app.model;
      const seed = whole(settings, "seed", "The seed");
      await this.fetch({ model: id, seed, index: 0, class: settings.class || null, steps: default_steps });
      this.runner.say("");
    } catch (error) {
      this.runner.fail(error);
    }
  }

  async fetch(origin) {
    const { index, ...request } = origin;
    const answer = await api.generate({ ...request, n: index + 1 });
    await this.putImage({ ...origin, ...answer.data[index], class: origin.class }, origin);
  }

  async putImage(item, origin = null) {
    const file = blobOf(item.b64_json);
    const label = origin ? `seed ${item.seed}, image ${item.index}` : "a result";
    this.put(await createImageBitmap(file), file, label, origin ? JSON.stringify(origin) : "");
  }

  /** An image of the Generate tab. */
  async takeGenerated(item) {
    const { model, seed, index, class: name, of } = item;
    const steps = item.request ? item.request.steps : item.steps; // null where its sampler says them
    const asked = askedOf(item);
    this.app.use(model);
    if (name !== null && this.form.elements.class) this.form.elements.class.value = name;
    this.form.elements.prompt.value = asked.prompt ?? "";
    this.app.go("edit");
    await this.putImage(item, of === undefined ? { model, seed, index, class: name, steps, ...asked } : null);
  }

  // The edit

  fields() {
    const settings = values(this.form);
    const { task } = settings;
    const chosen = [...SETTINGS[task], ...(task === "denoise" ? [] : SAMPLING)];
    const fields = { model: this.app.model.id, task, class: settings.class };
    if (this.app.model.prompts && settings.prompt.trim()) fields.prompt = settings.prompt.trim();
    for (const key of chosen) fields[key] = settings[key];
    if ("seed" in fields) whole(settings, "seed", "The seed");
    if ("n" in fields) whole(settings, "n", "The number of results", { min: 1, max: most(this.app.model, RESULTS) });
    return fields;
  }

  async edit(signal, say) {
    if (!this.easel.filled) throw new Error("Take a picture first: upload one, generate one, or begin with a blank canvas.");
    const fields = this.fields();
    const { mask } = this.easel;
    const masked = fields.task === "inpaint";
    if (masked && mask.empty) throw new Error("Paint over what is to be made anew first.");
    this.form.elements.mask.value = masked ? packed(mask.painted) : "";
    this.app.remember("edit", values(this.form));
    say("Editing");
    const files = { image: await this.easel.image(this.file), mask: masked ? await pngOf(mask.mask()) : null };
    const answer = await api.edit(fields, files, { signal, say });
    this.settings = fields;
    this.show(answer.data);
    reveal(this.after);
    say([`${count(answer.data.length, "result")} in ${milliseconds(answer.seconds)}.`, ...answer.notes].join(" "));
  }

  show(results) {
    this.results = results;
    const find = (name) => this.after.querySelector(name);
    const grid = find(".grid");
    tiles(grid, results, (item) => `result ${item.index}`, (item) => this.select(item));
    grid.hidden = results.length < 2;
    find(".empty").hidden = results.length > 0;
    find(".large").hidden = find(".actions").hidden = results.length === 0;
    if (results.length) this.select(results[0]);
    else find("figcaption span").textContent = "";
  }

  select(item) {
    this.selected = item;
    const image = picture(item.b64_json, `the result of ${this.settings.task}`);
    image.addEventListener("load", () => {
      this.after.querySelector("figcaption span").textContent =
        `${TASKS[this.settings.task][0].toLowerCase()} · ${image.naturalWidth} × ${image.naturalHeight}`;
    });
    this.after.querySelector(".large").replaceChildren(image);
    press(this.after.querySelector(".grid"), this.results.indexOf(item));
  }

  async act({ source, act }) {
    const name = this.settings && `${this.settings.model}-${this.settings.task}`;
    if (source === "generate") await this.generate();
    if (source === "blank") this.blank();
    if (act === "download") download(blobOf(this.selected.b64_json), `${name}.png`);
    if (act === "both")
      download(await sheet([[this.easel.seen, this.selected.b64_json]], this.settings), `${name}-both.png`);
    if (act === "again") await this.putImage(this.selected);
  }

  /** After a link: its picture where it can be made again, its mask, and the edit. */
  async restore({ source, mask, task, steps, fit }) {
    const elements = this.form.elements;
    if (task) this.choose();
    if (steps) limit(elements.steps, elements.steps.max, steps);
    if (fit) elements.fit.value = fit;
    if (source === "blank") this.blank();
    else if (source) await this.fetch(JSON.parse(source)).catch((error) => this.runner.fail(error));
    else return this.runner.say("The picture of this link is not part of it: upload it again.");
    if (!this.easel.filled) return;
    const { width, height } = this.easel.picture;
    if (mask) this.easel.mask.paintWhere(unpacked(mask, width * height));
    if (task !== "inpaint" || mask) await this.runner.run();
  }

  commands() {
    let fields;
    try {
      fields = this.fields();
    } catch {
      return; // the error is shown when the form is sent
    }
    const { model: _, task, class: label, n, ...rest } = fields;
    const mask = task === "inpaint" ? { mask: "mask.png" } : {};
    const flags = Object.fromEntries(Object.entries(rest).map(([key, value]) => [`--${key}`, value]));
    const verb = task === "denoise" ? "denoise" : `edit ${task}`;
    const all = { "--mask": mask.mask, ...flags, "-n": n, "--label": label, "-o": "result.png" };
    terminal(this.section.querySelector(".terminal"), [
      ["Command line", `fewstep ${verb} ${run(this.app.model)} picture.png ${words(all)}`],
      ["HTTP", curlForm("v1/images/edits", fields, { image: "picture.png", ...mask })],
    ]);
  }
}

function reason(model, missing) {
  if (model.solves) return "they need a consistency model, and this is a diffusion model.";
  if (missing.length === 1 && missing[0] === TASKS.colourise[0]) return "this model makes grey images.";
  return "this model does not offer them.";
}
