// What computes, beside the page so that it does not freeze: one job after the other.

import { edit } from "./editing.js";
import { generate, interpolate } from "./generating.js";
import { Model } from "./model.js";

const JOBS = { prepare: () => null, generate, interpolate, edit };
const TURN = 30; // milliseconds of work, after which the page may say that it is cancelled

const cancelled = new Set();
const models = new Map();
let last = Promise.resolve();

/** What a job has beside its request: how to say something, and how to learn that it is cancelled. */
class Context {
  constructor(id) {
    this.id = id;
    this.turn = performance.now();
  }

  say(told) {
    postMessage({ id: this.id, told });
  }

  partial(partial) {
    postMessage({ id: this.id, partial });
  }

  /** Between two pieces of work. */
  async pause() {
    if (performance.now() - this.turn < TURN) return;
    await new Promise((resolve) => setTimeout(resolve));
    this.turn = performance.now();
    this.check();
  }

  check() {
    if (cancelled.has(this.id)) throw new Cancelled();
  }
}

class Cancelled extends Error {}

const NEEDED = ["WebAssembly", "OffscreenCanvas", "CompressionStream", "DecompressionStream"];

/** Refuse a browser that lacks what the page is made of. */
function checkBrowser() {
  const missing = NEEDED.filter((name) => !(name in globalThis));
  if (missing.length) throw new Error(`This browser is too old for this page: it has no ${missing.join(", ")}.`);
}

/** The model that a request names, loaded once. */
function model(name, context) {
  if (!models.has(name)) {
    const loading = Model.load(name, (text) => context.say(text));
    loading.catch(() => models.delete(name)); // the next request tries again
    models.set(name, loading);
  }
  return models.get(name);
}

async function work({ id, job, body }) {
  const context = new Context(id);
  try {
    context.check();
    checkBrowser();
    const loaded = await model(body.model ?? body.fields?.model ?? null, context);
    context.check();
    const answer = await JOBS[job](loaded, body, context);
    postMessage({ id, answer });
  } catch (error) {
    if (error instanceof Cancelled) return;
    if (error instanceof TypeError || error instanceof ReferenceError) console.error(error);
    postMessage({ id, failed: { message: error.message ?? String(error), param: error.param ?? null } });
  } finally {
    cancelled.delete(id);
  }
}

addEventListener("message", ({ data }) => {
  if (data.cancelled) cancelled.add(data.cancelled);
  else last = last.then(() => work(data));
});
