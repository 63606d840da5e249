// The parts that all tabs share: elements, pictures, forms that run and can be cancelled.

import { urlOf } from "./png.js";

/** An element: el("button", { type: "button" }, "Text", child). */
export function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const SMALL = 160; // images up to this size are enlarged with sharp pixels

/** An image that shows its pixels where it has few. */
export function picture(b64, alt = "") {
  const image = el("img", { alt });
  image.addEventListener("load", () => sharpen(image, image.naturalWidth));
  image.src = urlOf(b64);
  return image;
}

export const sharpen = (element, width) => element.classList.toggle("pixels", width <= SMALL);

/** An empty place in the shape of a picture, which keeps the layout while one is awaited. */
export const place = () => el("span", { className: "place" });

/** Buttons with images; `choose(item)` is called by a click; one is pressed at a time. */
export function tiles(grid, items, describe, choose) {
  grid.replaceChildren(
    ...items.map((item) => {
      const tile = el("button", { type: "button", className: "tile", title: describe(item) });
      tile.append(item.b64_json ? picture(item.b64_json, describe(item)) : place());
      tile.addEventListener("click", () => choose(item));
      return tile;
    }),
  );
}

export function press(grid, number) {
  [...grid.children].forEach((tile, i) => tile.setAttribute("aria-pressed", String(i === number)));
}

/** What a form holds, as strings by name. */
export const values = (form) => Object.fromEntries(new FormData(form));

/** Put strings back into a form; names and values that it does not have are passed over. */
export function fill(form, settings) {
  for (const [name, value] of Object.entries(settings)) {
    const control = form.elements[name];
    if (!control) continue;
    if (control instanceof HTMLSelectElement && ![...control.options].some((o) => o.value === value))
      continue;
    control.value = value;
  }
  showValues(form);
}

/** The number beside every slider. */
export function showValues(root) {
  for (const slider of root.querySelectorAll("input[type=range]")) {
    const output = slider.parentElement.querySelector("output");
    if (output) output.value = slider.value;
  }
}

/** Limits of a slider, its value kept within them. */
export function limit(slider, max, value = slider.value) {
  slider.max = max;
  slider.value = value;
  showValues(slider.parentElement);
}

const SEEDS = 2 ** 31;

export function dice(root) {
  for (const button of root.querySelectorAll("[data-dice]"))
    button.addEventListener("click", () => {
      button.form.elements[button.dataset.dice].value = Math.floor(Math.random() * SEEDS);
      button.form.dispatchEvent(new Event("input", { bubbles: true }));
    });
}

/** The model's classes as radio buttons, or as a list where there are many. */
export function classes(fieldset, model, { all }) {
  const before = fieldset.querySelector(":checked")?.value;
  const names = model?.classes;
  fieldset.hidden = !names;
  fieldset.replaceChildren();
  if (!names) return;
  const options = [...(all ? [["", "all in turn"]] : []), ...names.map((name) => [name, name])];
  const kept = options.some(([value]) => value === before) ? before : options[0][0];
  fieldset.append(el("legend", {}, "Class"));
  if (names.length > 20) {
    const select = el("select", { name: "class", ariaLabel: "Class" });
    select.append(...options.map(([value, text]) => el("option", { value }, text)));
    select.value = kept;
    fieldset.append(select);
  } else fieldset.append(chips("class", options, kept));
}

/** Radio buttons that look like a row of buttons. */
export function chips(name, options, chosen, disabled = () => false) {
  const row = el("div", { className: "chips" });
  for (const [value, text] of options) {
    const radio = el("input", { type: "radio", name, value, checked: value === chosen });
    radio.disabled = disabled(value);
    row.append(el("label", { className: "chip" }, radio, el("span", {}, text)));
  }
  return row;
}

/**
 * A form whose button runs `work(signal, say)` and, meanwhile, cancels it. An error is shown
 * beside the control that it is about, else under the button. What was entered is never changed.
 */
export class Runner {
  constructor(form, work) {
    this.form = form;
    this.button = form.querySelector("button[data-busy]");
    this.status = form.querySelector(".status");
    this.label = this.button.textContent;
    this.work = work;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.controller) this.controller.abort();
      else this.run();
    });
  }

  async run() {
    this.controller?.abort();
    const controller = (this.controller = new AbortController());
    this.clear();
    this.busy(true);
    reveal(this.form.parentElement.querySelector(".stage"));
    try {
      await this.work(controller.signal, (text) => this.say(text));
    } catch (error) {
      if (this.controller !== controller) return;
      if (error.name === "AbortError" || controller.signal.aborted) this.say("Cancelled.");
      else this.fail(error);
    } finally {
      if (this.controller === controller) {
        this.controller = null;
        this.busy(false);
      }
    }
  }

  /** Give up what is going on: nobody waits for its answer any longer. */
  drop() {
    this.controller?.abort();
    this.controller = null;
    this.clear();
    this.busy(false);
  }

  busy(on) {
    this.form.classList.toggle("busy", on);
    this.form.setAttribute("aria-busy", String(on));
    this.button.textContent = on ? this.button.dataset.busy : this.label;
  }

  say(text) {
    this.status.textContent = text;
  }

  fail(error) {
    this.say("");
    const control = error.param && this.form.elements[error.param];
    const at = control instanceof HTMLElement ? control.closest(".field") : null;
    const message = el("p", { className: "message", role: "alert" }, error.message);
    if (at) {
      at.append(message);
      control.setAttribute("aria-invalid", "true");
    } else this.button.after(message);
    message.scrollIntoView({ block: "nearest" });
    if (error instanceof TypeError || error instanceof ReferenceError) console.error(error);
  }

  clear() {
    this.say("");
    this.form.querySelectorAll(".message").forEach((message) => message.remove());
    this.form.querySelectorAll("[aria-invalid]").forEach((c) => c.removeAttribute("aria-invalid"));
  }
}

/** Scroll to an element that lies below what is seen, as on a phone. */
export function reveal(element) {
  if (element && element.getBoundingClientRect().top > 0.7 * innerHeight)
    element.scrollIntoView({ block: "start" });
}

/** Most steps of a slider: beyond these a consistency model gains nothing. */
export const stepLimit = ({ solves, max_steps }, most = 16) => Math.min(max_steps, solves ? 64 : most);

/** As many images as a model is asked for at once, where more than the server allows are wished. */
export const most = ({ max_n }, wish) => Math.min(wish, max_n ?? wish);

/** A whole number from a form, or an error that says which control is wrong. */
export function whole(settings, name, label, { min = 0, max = Number.MAX_SAFE_INTEGER } = {}) {
  const number = Number(settings[name]);
  if (settings[name] === "" || !Number.isInteger(number) || number < min || number > max)
    throw Object.assign(new Error(`${label} must be a whole number from ${min} to ${max}.`),
      { param: name });
  return number;
}

export const milliseconds = (seconds) =>
  seconds < 1 ? `${(1000 * seconds).toPrecision(2) / 1} ms` : `${seconds.toFixed(1)} s`;

export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
