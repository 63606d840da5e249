// Watch: how far trainings are, their curves over each other, and their samples as they sharpen.

import * as api from "./api.js";
import { Chart } from "./chart.js";
import { count, el, values } from "./widgets.js";

const SOON = 2; // seconds between two looks while something is going on,
const LATER = 10; // and while nothing is
const SHOWN = 8; // runs that are shown at first, where nothing else is said
const KEPT = 200; // sample grids that are kept
const FRAME = 400; // milliseconds of a sample grid while they play
const COLOURS = 8;
const DASHES = ["", "6 3", "2 3"];

const KNOWN = {
  loss: ["Loss", { noisy: true }],
  energy_distance: ["Validation", { note: "energy distance to held-out images" }],
  lr: ["Learning rate", { linear: true }],
  gradient_norm: ["Gradient norm", { noisy: true }],
  images_per_second: ["Images per second", { linear: true, noisy: true }],
};
const MAIN = Object.keys(KNOWN);
const ERROR = "_error"; // of a metric, the metric that is the error of it

const STATES = ["running", "starting", "finished", "stopped", "damaged", "gone"];

export class Watch {
  constructor(app, section) {
    this.app = app;
    this.section = section;
    this.form = section.querySelector("form.controls");
    this.list = section.querySelector(".runs");
    this.status = section.querySelector(".status");
    this.slider = section.querySelector("[name=sample]");
    this.runs = new Map(); // by id: what the server says, rows, colour, whether it is shown
    this.headings = new Map(); // by group
    this.charts = new Map(); // by metric
    this.pictures = new Map(); // object URLs of sample grids, the oldest first
    this.follow = true; // the newest samples
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.changed());
    this.slider.addEventListener("input", () => {
      this.follow = Number(this.slider.value) === Number(this.slider.max);
      this.samples();
    });
    section.addEventListener("click", (event) => this.act(event.target.dataset?.act));
    document.addEventListener("visibilitychange", () => this.wake());
  }

  model() {} // trainings are those of no model

  /** Called when the tab is gone to or left. */
  shown(on) {
    this.on = on;
    this.wake();
  }

  wake() {
    clearTimeout(this.timer);
    if (this.on && !document.hidden) this.look();
  }

  /** After a link. */
  restore({ hidden, only }) {
    this.wish = { hidden: hidden?.split("\n"), only: only?.split("\n") };
    if (!this.runs.size) return; // they come, and are asked whether they are wished for
    for (const run of this.runs.values()) run.shown = this.wished(run.id) ?? run.shown;
    this.legend();
    this.changed();
  }

  wished(id) {
    if (this.wish?.only) return this.wish.only.includes(id);
    return this.wish?.hidden ? !this.wish.hidden.includes(id) : undefined;
  }

  changed() {
    if (!this.runs.size) return;
    for (const box of this.list.querySelectorAll("input")) this.runs.get(box.value).shown = box.checked;
    const all = [...this.runs.values()];
    const [on, off] = [true, false].map((shown) => all.filter((run) => run.shown === shown).map((run) => run.id).join("\n"));
    const said = off === "" ? {} : on.length < off.length ? { only: on } : { hidden: off };
    this.app.remember("watch", values(this.form), said);
    this.fetch().then(() => this.draw(), (error) => this.fail(error));
  }

  /** Ask what is new, and again after a while. */
  async look() {
    if (this.looking) return;
    this.looking = true;
    try {
      const { data, left_out } = await api.runs();
      this.take(data);
      await this.fetch();
      this.status.classList.remove("message");
      this.status.textContent = left_out ? `${count(left_out, "older run")} left out: the newest ${data.length} are watched.` : "";
      this.draw();
    } catch (error) {
      this.fail(error);
    } finally {
      this.looking = false;
    }
    const going = [...this.runs.values()].some((run) => ["running", "starting"].includes(run.state));
    clearTimeout(this.timer);
    if (this.on && !document.hidden) this.timer = setTimeout(() => this.look(), 1000 * (going ? SOON : LATER));
  }

  fail(error) {
    this.status.classList.add("message");
    this.status.textContent = error.message;
    if (error instanceof TypeError || error instanceof ReferenceError) console.error(error);
  }

  take(found) {
    const first = this.runs.size === 0;
    for (const said of found) {
      const number = this.runs.size;
      const run = this.runs.get(said.id) ?? {
        rows: [],
        at: "",
        colour: `var(--run-${number % COLOURS})`,
        dash: DASHES[Math.floor(number / COLOURS) % DASHES.length],
        shown: this.wished(said.id) ?? number < SHOWN,
      };
      this.runs.set(said.id, Object.assign(run, { said, state: said.state, id: said.id }));
    }
    const going = found.filter((said) => said.state === "running" || said.state === "starting");
    if (first && found.length > SHOWN && going.length && !this.wish)
      for (const run of this.runs.values()) run.shown = going.some((said) => said.id === run.id);
  }

  /** The rows of the shown runs that are new. */
  async fetch() {
    const behind = [...this.runs.values()].filter((run) => run.shown && `${run.said.epoch} ${run.said.rows}` !== run.at);
    await Promise.all(behind.map((run) => this.rows(run)));
  }

  async rows(run) {
    for (let total = Infinity; run.rows.length < total; ) {
      const kept = Math.max(0, run.rows.length - 1); // the last may have grown
      const answer = await api.runLog(run.id, kept, run.epoch ?? "");
      run.rows = [...run.rows.slice(0, answer.after), ...answer.rows];
      run.epoch = answer.epoch;
      total = answer.total;
      if (!answer.rows.length) break;
    }
    run.at = `${run.said.epoch} ${run.said.rows}`;
  }

  draw() {
    this.legend();
    const shown = [...this.runs.values()].filter((run) => run.shown);
    this.curves(shown);
    this.steps(shown);
    const empty = !shown.some((run) => run.rows.length || run.said.samples.length);
    this.section.querySelector(".stage > .empty").hidden = !empty;
    this.section.querySelector(".empty p").replaceChildren(...this.nothing(shown));
  }

  nothing(shown) {
    const bold = (text) => el("strong", {}, text);
    if (!this.runs.size) return [bold("Nothing has begun yet."), "A training appears here as soon as it begins."];
    if (!shown.length) return [bold("No run is chosen."), "Choose some in the list."];
    return [bold("Nothing has been logged yet."), "The first line comes after the first steps."];
  }

  /** Every run with its colour, how far it is, and how long it will take. */
  legend() {
    const focused = document.activeElement?.value;
    const groups = new Map();
    for (const run of this.runs.values()) groups.set(run.said.group, [...(groups.get(run.said.group) ?? []), run]);
    place(this.list, [...groups].flatMap(([group, runs]) => [...(group ? [this.heading(group, runs)] : []), ...runs.map(entry)]));
    [...this.list.querySelectorAll("input")].find((box) => box.value === focused)?.focus();
    const trainings = [...this.runs.values()];
    document.title = title(trainings);
    if (!this.app.models.length) document.querySelector("#facts").textContent = summary(trainings);
  }

  heading(group, runs) {
    if (!this.headings.has(group)) this.headings.set(group, el("p", { className: "group" }, group, el("small")));
    const heading = this.headings.get(group);
    heading.lastChild.textContent = ` ${summary(runs)}`;
    return heading;
  }

  curves(shown) {
    const { scale, smoothing } = values(this.form);
    const known = new Set(shown.flatMap(({ rows }) => rows.flatMap((row) => Object.keys(row))));
    known.delete("step");
    const errors = [...known].filter((name) => name.endsWith(ERROR) && known.has(name.slice(0, -ERROR.length)));
    errors.forEach((name) => known.delete(name));
    const names = [...MAIN.filter((name) => known.has(name)), ...[...known].filter((name) => !MAIN.includes(name)).sort()];
    const last = Math.max(0, ...shown.map((run) => (run.state === "running" && run.said.steps) || 0));
    for (const name of names) {
      if (!this.charts.has(name)) this.charts.set(name, new Chart(...(KNOWN[name] ?? [titled(name)])));
      const curves = shown.map((run) => ({
        name: run.said.name,
        colour: run.colour,
        dash: run.dash,
        points: points(run.rows, name),
        errors: points(run.rows, name + ERROR),
      }));
      this.charts.get(name).show(curves, { scale, memory: Number(smoothing), last });
    }
    const drawn = (list) => list.map((name) => this.charts.get(name).element);
    place(this.section.querySelector(".charts.main"), drawn(names.filter((name) => MAIN.includes(name))));
    const others = names.filter((name) => !MAIN.includes(name));
    place(this.section.querySelector(".charts.others"), drawn(others));
    const more = this.section.querySelector(".more");
    more.hidden = !others.length;
    more.querySelector("summary").textContent = `What else is logged (${others.length})`;
  }

  /** The slider over the steps that have samples. */
  steps(shown) {
    this.sampled = shown.filter((run) => run.said.samples.length);
    const before = this.at?.[Number(this.slider.value)];
    this.at = [...new Set(this.sampled.flatMap((run) => run.said.samples))].sort((a, b) => a - b);
    this.section.querySelector(".sharpen").hidden = !this.at.length;
    if (!this.at.length) return;
    this.slider.max = this.at.length - 1;
    const same = this.at.findLastIndex((step) => step <= (before ?? Infinity));
    this.slider.value = this.follow ? this.at.length - 1 : Math.max(0, same);
    this.samples();
  }

  samples() {
    const step = this.at[Number(this.slider.value)];
    this.section.querySelector(".sharpen output").value = `step ${step.toLocaleString("en")}`;
    place(this.section.querySelector(".sheets-of-runs"), this.sampled.map((run) => this.sheet(run, step)));
  }

  /** The newest samples of a run up to a step; the picture before stays until they are there. */
  sheet(run, step) {
    run.figure ??= el("figure", {}, el("figcaption"), el("div", { className: "large" }));
    const own = run.said.samples.findLast((at) => at <= step);
    const dot = el("i", { className: "dot" });
    dot.style.background = run.colour;
    run.figure.firstChild.replaceChildren(dot, run.said.name, el("span", {}, own === undefined ? "no samples yet" : `step ${own.toLocaleString("en")}`));
    const wanted = own === undefined ? "" : `${run.id}\n${own}\n${run.said.epoch}`;
    if (run.wanted !== wanted) {
      run.wanted = wanted;
      if (wanted) this.fill(run, own, wanted);
      else run.figure.lastChild.replaceChildren();
    }
    return run.figure;
  }

  async fill(run, step, wanted) {
    try {
      if (!this.pictures.has(wanted)) this.keep(wanted, URL.createObjectURL(await api.runSample(run.id, step)));
    } catch {
      return; // a run that was resumed from before, or is gone; the next look says so
    }
    if (run.wanted !== wanted) return;
    const image = el("img", { alt: `samples of ${run.said.name} at step ${step}` });
    image.addEventListener("load", () => {
      if (run.wanted !== wanted) return;
      run.figure.lastChild.replaceChildren(image);
      image.classList.toggle("pixels", image.naturalWidth < image.clientWidth);
    });
    image.src = this.pictures.get(wanted);
  }

  keep(name, url) {
    this.pictures.set(name, url);
    if (this.pictures.size <= KEPT) return;
    const [oldest, old] = this.pictures.entries().next().value;
    URL.revokeObjectURL(old);
    this.pictures.delete(oldest);
  }

  act(act) {
    if (act === "all" || act === "none") {
      for (const box of this.list.querySelectorAll("input")) box.checked = act === "all";
      this.changed();
    }
    if (act === "play") this.play();
  }

  /** Go through the samples from the first to the last. */
  play() {
    const button = this.section.querySelector("[data-act=play]");
    const stop = () => {
      clearInterval(this.playing);
      this.playing = null;
      button.setAttribute("aria-pressed", "false");
      button.textContent = "Play";
    };
    if (this.playing) return stop();
    const end = Number(this.slider.max);
    if (Number(this.slider.value) === end) this.slider.value = 0;
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Stop";
    this.follow = false;
    this.samples();
    this.playing = setInterval(() => {
      this.slider.value = Number(this.slider.value) + 1;
      this.samples();
      if (Number(this.slider.value) < Number(this.slider.max)) return;
      this.follow = true;
      stop();
    }, FRAME);
  }
}

const titled = (name) => (name.length > 2 ? (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ") : name);

/** Steps and values of a metric, where it is there and finite. */
const points = (rows, name) => rows.filter((row) => row[name] !== undefined && row[name] !== null).map((row) => [row.step, row[name]]);

/** Put elements into a place, without touching those that stand there already. */
function place(parent, elements) {
  if (elements.length !== parent.children.length || elements.some((e, i) => e !== parent.children[i]))
    parent.replaceChildren(...elements);
}

/** A run's line in the list, which stays the same element: somebody may be about to click it. */
function entry(run) {
  const { said } = run;
  const line = (run.line ??= begun(run));
  const [box, text, track, small] = line.children;
  const share = said.steps ? Math.min(1, said.step / said.steps) : 0;
  Object.assign(line, { className: `run ${run.state}`, title: about(said) });
  box.checked = run.shown;
  text.lastChild.textContent = said.objective ?? "";
  track.firstChild.style.width = `${100 * share}%`;
  track.ariaValueNow = Math.round(100 * share);
  small.textContent = far(said);
  return line;
}

function begun({ id, colour, said }) {
  const [dot, bar] = [el("i", { className: "dot" }), el("span", { className: "bar" })];
  for (const mark of [dot, bar]) mark.style.background = colour;
  const box = el("input", { type: "checkbox", value: id });
  box.style.accentColor = colour;
  const track = el("div", { className: "track", role: "progressbar", ariaLabel: said.name }, bar);
  return el("label", {}, box, el("span", { className: "name" }, dot, said.name, el("small")), track, el("small", { className: "far" }));
}

/** How far a run is, in words. */
function far({ state, step, steps, seconds_left, why, damaged }) {
  const at = steps ? `${step.toLocaleString("en")} of ${steps.toLocaleString("en")} steps` : `step ${step.toLocaleString("en")}`;
  const said = {
    starting: "starting",
    running: seconds_left === null ? at : `${at}, ${duration(seconds_left)} left`,
    stopped: step ? `stopped at ${at}` : "nothing logged",
    finished: `finished, ${(steps ?? step).toLocaleString("en")} steps`,
    gone: why,
    damaged: why,
  }[state];
  return damaged ? `${said}; ${count(damaged, "damaged line")} left out` : said;
}

const about = ({ recipe, network, data, teacher, batch, changes }) =>
  [
    recipe, network && `network ${network}`, data && `data ${data}`, teacher && `teacher ${teacher}`, batch && `batch ${batch}`,
    ...(changes ?? []).map((c) => `from step ${c.step} on ${c.setting} ${c.after}`),
  ].filter(Boolean).join(" · ");

/** How many runs are in which state. */
function summary(runs) {
  const number = (state) => runs.filter((run) => run.state === state).length;
  return STATES.filter(number).map((state) => `${number(state)} ${state}`).join(", ") || "no training yet";
}

/** What the browser's tab says: how far the training is, or how many run. */
function title(runs) {
  const going = runs.filter((run) => run.state === "running");
  if (going.length !== 1) return going.length ? `${going.length} running · fewstep` : "fewstep";
  const { name, step, steps, seconds_left } = going[0].said;
  const share = steps ? `${Math.floor((100 * step) / steps)} %` : `step ${step}`;
  return `${share}${seconds_left === null ? "" : `, ${duration(seconds_left)} left`} · ${name}`;
}

export function duration(seconds) {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (h >= 48) return `${Math.round(whole / 86400)} days`;
  if (h) return `${h} h ${m} min`;
  return m >= 10 ? `${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}
