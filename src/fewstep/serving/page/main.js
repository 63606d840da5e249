// The page as a whole: the model, the tabs, and a link that reproduces what is seen.

import * as api from "./api.js";
import { Compare } from "./compare.js";
import { Edit } from "./edit.js";
import { Gallery } from "./gallery.js";
import { Generate } from "./generate.js";
import { Interpolate } from "./interpolate.js";
import { affordable } from "./opening.js";
import { Watch } from "./watch.js";
import { dice, el, fill, most, showValues } from "./widgets.js";

const TABS = { generate: Generate, gallery: Gallery, edit: Edit, interpolate: Interpolate, compare: Compare };
const OPENED = 20; // pictures that the page opens with, where they are there in a moment

class App {
  constructor(models, runs) {
    this.models = models;
    this.tabs = { ...(models.length ? TABS : {}), ...(runs.length || !models.length ? { watch: Watch } : {}) };
    this.select = document.querySelector("#model");
    this.select.replaceChildren(...models.map(({ id }) => el("option", { value: id }, id)));
    this.select.parentElement.hidden = !models.length;
    for (const [name, Tab] of Object.entries(this.tabs)) this[name] = new Tab(this, document.getElementById(name));
    this.select.addEventListener("change", () => this.use(this.select.value));
    const all = [...document.querySelectorAll("[role=tab]")];
    for (const button of all) button.hidden = !(name(button) in this.tabs);
    const buttons = all.filter((button) => !button.hidden);
    for (const button of buttons) {
      button.addEventListener("click", () => this.go(name(button)));
      button.addEventListener("keydown", (event) => this.arrow(event, buttons));
    }
    window.addEventListener("hashchange", () => this.restore());
    if (models.length) this.use((models.find((model) => model.default) ?? models[0]).id);
    this.restore();
  }

  find(id) {
    return this.models.find((model) => model.id === id);
  }

  use(id) {
    if (this.model?.id === id || !this.find(id)) return;
    this.model = this.find(id);
    this.select.value = id;
    const place = document.querySelector("#facts");
    place.textContent = facts(this.model);
    place.title = this.model.objective ?? "";
    for (const tab of Object.keys(this.tabs)) this[tab].model(this.model);
    showValues(document);
  }

  go(tab) {
    for (const button of document.querySelectorAll("[role=tab]")) {
      const chosen = name(button) === tab;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      document.getElementById(name(button)).hidden = !chosen;
    }
    for (const each of Object.keys(this.tabs)) this[each].shown?.(each === tab);
  }

  arrow(event, buttons) {
    const to = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!to) return;
    const next = buttons[(buttons.indexOf(event.currentTarget) + to + buttons.length) % buttons.length];
    this.go(name(next));
    next.focus();
  }

  /** Write what a tab shows into the address: the values of its form, and more. */
  remember(tab, said, more = {}) {
    const settings = Object.entries(said).filter(([, value]) => typeof value === "string" && value !== "");
    const model = this.model && { model: this.model.id };
    const text = new URLSearchParams({ tab, ...model, ...Object.fromEntries(settings), ...more });
    history.replaceState(null, "", `#${text}`);
  }

  /** Show what the address says, and run it. */
  restore() {
    const { tab, model, ...settings } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    if (!(tab in this.tabs)) return this.go(Object.keys(this.tabs)[0]);
    if (model && !this.find(model)) warn(`This link is about the model "${model}", which is not served.`);
    this.use(model);
    this.go(tab);
    fill(this[tab].form, { class: "", ...settings });
    this[tab].form.dispatchEvent(new Event("input", { bubbles: true }));
    if (Object.keys(settings).length) (this[tab].restore ? this[tab].restore(settings) : this[tab].runner.run());
  }
}

const name = (button) => button.getAttribute("aria-controls");

function facts({ kind, objective, shape: [C, H, W], classes }) {
  const colours = C === 1 ? "grey" : "colour";
  return [objective?.split("(")[0], kind, `${W} × ${H} ${colours}`, classes ? `${classes.length} classes` : "no classes"]
    .filter(Boolean).join(" · ");
}

function warn(text) {
  const place = document.querySelector("#trouble");
  place.textContent = text;
  place.hidden = false;
}

/** The first look: what there is to be seen before anything was asked for. */
async function open(app) {
  const foot = api.about();
  if (foot !== null) document.querySelector("footer").textContent = foot;
  if (!app.models.length || location.hash) return;
  const seen = await api.first().catch(() => null);
  if (seen) return app.generate.seen(seen);
  const n = await affordable(app.model, most(app.model, OPENED));
  if (n && !location.hash) await app.generate.open(n);
}

document.addEventListener("input", (event) => event.target.form && showValues(event.target.form));
showValues(document);
dice(document);
try {
  const [models, runs] = await Promise.all([api.models(), api.runs()]);
  await open(new App(models, runs.data));
} catch (error) {
  warn(error.message);
}
