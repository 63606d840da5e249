// The page's API without a server: the same answers, made by a worker of this browser.

/** What went wrong, in words for the user; `param` is the setting that it is about, if known. */
export class ApiError extends Error {
  constructor(message, param = null) {
    super(message);
    this.param = param;
  }
}

const waiting = new Map(); // what is asked of the worker, by its number
let worker = null;
let count = 0;

function start() {
  worker = new Worker(new URL("browser/worker.js", import.meta.url), { type: "module" });
  worker.addEventListener("message", ({ data }) => hear(data));
  worker.addEventListener("error", (event) => {
    const why = event.message ? `: ${event.message}` : "; it may be too old";
    for (const { reject } of waiting.values()) reject(new ApiError(`This browser cannot compute the model${why}.`));
    waiting.clear();
    worker = null;
  });
}

function hear({ id, partial, told, answer, failed }) {
  const asked = waiting.get(id);
  if (!asked) return;
  if (partial) return asked.onPartial?.(partial);
  if (told) return asked.say?.(told);
  waiting.delete(id);
  if (failed) asked.reject(new ApiError(failed.message, failed.param));
  else asked.resolve(answer);
}

/** Let the worker do something; it is told to stop where the signal says so. */
function ask(job, body, { signal, onPartial, say } = {}) {
  signal?.throwIfAborted();
  if (!worker) start();
  const id = ++count;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, onPartial, say });
    worker.postMessage({ id, job, body });
    signal?.addEventListener("abort", () => {
      worker?.postMessage({ cancelled: id });
      waiting.delete(id);
      reject(signal.reason);
    });
  });
}

async function json(path) {
  const response = await fetch(path).catch(() => null);
  if (!response?.ok) throw new ApiError(`${path} is missing beside this page.`);
  return response.json();
}

export async function models() {
  const { models } = await json("models/models.json");
  [model] = models;
  return models;
}

/** The request and the answer that the page opens with. */
export async function first() {
  const seen = await json("models/first.json");
  ask("prepare", {}).catch(() => {}); // what failed is said by the first request
  return seen;
}

export const generate = (body, how) => ask("generate", { n: 1, ...body }, how);
export const interpolate = (body, how) => ask("interpolate", body, how);
export const edit = (fields, files, how) => ask("edit", { fields, files }, how);

/** Training images are no part of an export. */
export const neighbours = null;

/** No training is watched where no server is. */
export const runs = async () => ({ data: [], left_out: 0 });

export const guarded = false;
export const served = false;
export const measured = `The fastest of up to 5 runs, on one thread of this browser.`;
export const beside = (kind) => `This page has no ${kind} model: fewstep serve has one beside the other.`;

let model = null;

/** What the foot of the page says: where it is computed, and what the model is made of. */
export function about() {
  const { sources, licence, computed } = model;
  return [
    "Computed in this browser. Nothing leaves it.",
    sources.length && `The model comes from ${sources.join(", ")}.`,
    licence && `Its licence: ${licence}.`,
    `Made with fewstep ${computed.fewstep} and ${computed.engine}.`,
  ].filter(Boolean).join(" ");
}
