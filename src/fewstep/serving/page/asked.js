// How images are asked for: steps or a sampler, guidance and a prompt, in a form and in a request.

import { fill } from "./widgets.js";

const COUNTED = /\b(steps|nfe|times|rk45)\b/;
const FIELDS = ["sampler", "guidance", "guidance_interval", "prompt"];

/** Show of these fields what a model has a use for. */
export function offer(form, model) {
  form.querySelector(".prompt").hidden = !model.prompts;
  form.querySelector(".guidance").hidden = !model.guides;
  form.elements.guidance.placeholder = model.guidance ?? "none";
  const kind = model.solves ? "walk" : "jumps";
  if ((form.dataset.sampler ?? kind) !== kind) form.elements.sampler.value = "";
  form.dataset.sampler = kind;
  form.querySelector("[data-sampler-note]").textContent =
    model.solves ? "such as walk(solver=dpm3, nfe=12)" : "such as jumps(times=(0.8,))";
}

/** What a form says, as fields of a request. */
export function asked(settings, model) {
  const sampler = settings.sampler.trim() || null;
  const prompt = model.prompts ? settings.prompt.trim() : "";
  return {
    steps: COUNTED.test(sampler) ? null : Number(settings.steps), // a sampler may say them itself
    sampler,
    ...(prompt ? { prompt } : {}),
    ...(model.guides ? guidance(settings) : {}),
  };
}

/** The weight and the noise levels of guidance, where they are given. */
function guidance(settings) {
  const [w, ...interval] = ["guidance", "guidance_low", "guidance_high"].map((name) => settings[name]?.trim() || null);
  if (interval.every((level) => level === null)) return w === null ? {} : { guidance: Number(w) };
  if ([w, ...interval].includes(null)) throw new Error("Give the guidance and both noise levels between which it applies.");
  return { guidance: Number(w), guidance_interval: interval.map(Number) };
}

/** What an image was asked for with, for what follows from it. */
export function askedOf({ request = {} }) {
  return Object.fromEntries(FIELDS.filter((name) => (request[name] ?? null) !== null).map((name) => [name, request[name]]));
}

/** Put it into a form. */
export function fillAsked(form, { sampler = "", guidance = "", guidance_interval: [low, high] = ["", ""], prompt = "" }) {
  fill(form, { sampler, guidance, guidance_low: low, guidance_high: high, prompt });
}
