// Compare: one step, two steps and the teacher from the same noise, with their times.

import * as api from "./api.js";
import { download, sheet } from "./png.js";
import { curl, run, terminal, words } from "./terminal.js";
import { Runner, classes, count, el, limit, milliseconds, most, picture, place, values, whole } from "./widgets.js";

const RUNS = 5; // of each row at most, and
const ENOUGH = 1; // second of it: the fastest counts, as the one that others disturbed least

export class Compare {
  constructor(app, section) {
    this.app = app;
    this.section = section;
    this.form = section.querySelector("form");
    this.rows = [];
    this.runner = new Runner(this.form, (signal, say) => this.compare(signal, say));
    this.list("student", "maps");
    this.list("teacher", "solves");
    this.explain();
    section.addEventListener("click", (event) => this.act(event.target.dataset?.act));
    this.form.addEventListener("input", () => this.choose());
    this.choose();
  }

  list(name, can) {
    const select = this.form.elements[name];
    const models = this.app.models.filter((model) => model[can]);
    select.replaceChildren(...models.map(({ id }) => el("option", { value: id }, id)));
    select.disabled = models.length === 0;
    if (!models.length) select.append(el("option", { value: "" }, "none is served"));
  }

  /** How to get what is missing. */
  explain() {
    const { student, teacher } = this.form.elements;
    const add = (kind) => api.beside(kind, this.app.models.map(run));
    this.form.querySelector(".why").textContent =
      student.disabled ? add("consistency") : teacher.disabled ? add("diffusion") : "";
    this.form.querySelector("[data-teacher]").hidden = teacher.disabled;
    this.runner.button.disabled = student.disabled;
  }

  model(model) {
    const select = this.form.elements[model.solves ? "teacher" : "student"];
    select.value = model.id;
    this.choose();
  }

  choose() {
    const student = this.app.find(this.form.elements.student.value);
    const teacher = this.app.find(this.form.elements.teacher.value);
    if (student) this.form.elements.n.max = most(student, 32);
    if (student !== this.student) classes(this.form.querySelector(".classes"), student, { all: true });
    if (teacher && teacher !== this.teacher)
      limit(this.form.elements.teacher_steps, Math.min(teacher.max_steps, 64), teacher.default_steps);
    Object.assign(this, { student, teacher });
    this.commands();
  }

  requests() {
    const settings = values(this.form);
    const shared = {
      n: whole(settings, "n", "The number of images", { min: 1, max: most(this.student, 32) }),
      seed: whole(settings, "seed", "The seed"),
      class: settings.class || null,
    };
    const { student, teacher } = this;
    if (teacher && String(teacher.shape) !== String(student.shape))
      throw Object.assign(new Error(`${teacher.id} and ${student.id} make images of different shapes.`), { param: "teacher" });
    const rows = [
      { title: "One step", model: student.id, steps: 1 },
      { title: "Two steps", model: student.id, steps: 2 },
    ].filter(({ steps }) => steps <= student.max_steps);
    if (teacher) rows.push({ title: count(Number(settings.teacher_steps), "step"), model: teacher.id, steps: Number(settings.teacher_steps) });
    return rows.map(({ title, ...row }) => ({ title, request: { ...row, ...shared } }));
  }

  async compare(signal, say) {
    const rows = this.requests();
    this.app.remember("compare", values(this.form));
    this.rows = rows.map((row) => ({ ...row, images: Array(row.request.n).fill(null) }));
    this.draw();
    try {
      await this.fill(signal, say);
    } finally {
      this.rows = this.rows.filter((row) => row.seconds); // those that a failure left empty
      this.draw();
    }
  }

  async fill(signal, say) {
    say("Warming up");
    // The first batch of a model is slower than all that follow.
    for (const id of new Set(this.rows.map((row) => row.request.model)))
      await api.generate({ ...this.rows[0].request, model: id, steps: 1 }, { signal, say });
    for (const row of this.rows) {
      say(`${row.title} of ${row.request.model}`);
      const times = [];
      while (times.length < RUNS && times.reduce((a, b) => a + b, 0) < ENOUGH) {
        const answer = await api.generate(row.request, { signal });
        times.push(answer.seconds);
        Object.assign(row, { seconds: Math.min(...times), images: answer.data.map((i) => i.b64_json) });
      }
      this.draw();
    }
    say(api.measured);
  }

  draw() {
    const slowest = Math.max(...this.rows.map((row) => row.seconds ?? 0));
    const first = this.rows[0]?.seconds;
    const place_ = this.section.querySelector(".rows");
    place_.replaceChildren(...this.rows.map((row) => {
      const { n, model } = row.request;
      const bar = el("span", { className: "bar" });
      bar.style.width = row.seconds ? `${Math.max(1, (100 * row.seconds) / slowest)}%` : "0";
      const times = row.seconds ? row.seconds / first : null;
      const heading = el("h2", {}, row.title, " ", el("small", {}, model));
      const time = el("p", { className: "time" }, row.seconds ? milliseconds(row.seconds) : "…");
      if (times && row !== this.rows[0]) time.append(el("small", {}, ` ${times.toFixed(1)} × one step`));
      const strip = el("div", { className: "strip-row" });
      strip.append(...row.images.map((b64, i) => (b64 ? picture(b64, `${row.title}, image ${i}`) : place())));
      const note = el("small", { className: "per" }, row.seconds ? `${milliseconds(row.seconds / n)} per image` : "");
      return el("section", { className: "comparison" }, el("header", {}, heading, time), el("div", { className: "track" }, bar), strip, note);
    }));
    const none = this.rows.length === 0;
    place_.hidden = none;
    this.section.querySelector(".stage > .empty").hidden = !none;
    this.section.querySelector(".stage > .actions").hidden = none || !this.rows.every((row) => row.seconds);
  }

  async act(act) {
    if (act !== "sheet") return;
    const settings = this.rows.map(({ request, seconds }) => ({ ...request, seconds }));
    download(await sheet(this.rows.map((row) => row.images), settings), `comparison-seed${settings[0].seed}.png`);
  }

  commands() {
    if (!this.student) return;
    let rows;
    try {
      rows = this.requests();
    } catch {
      return; // the error is shown when the form is sent
    }
    const line = ({ request: r }) => `fewstep sample ${run(this.app.find(r.model))} ` +
      words({ "-n": r.n, "--steps": r.steps, "--seed": r.seed, "--label": r.class, "-o": `${r.model}-${r.steps}.png` });
    terminal(this.section.querySelector(".terminal"), [
      ["Command line", rows.map(line).join("\n")],
      ["HTTP", api.served ? rows.map((row) => curl("v1/images/generations", row.request)).join("\n\n") : null],
    ]);
  }
}
