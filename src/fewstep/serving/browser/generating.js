// Images from noise, and the frames between two noises.

import { Stream } from "./noise.js";
import { joined } from "./numbers.js";
import { png } from "./encode.js";
import { jumps, noiseLevels, walk } from "./walks.js";

const SEEDS = 2 ** 31;

/** An answer in the shape of the HTTP API's. */
export function answer(model, seed, steps, began, data, notes = []) {
  const seconds = Number(((performance.now() - began) / 1000).toFixed(4));
  const { engine } = model.computed;
  return { created: Math.floor(Date.now() / 1000), model: model.about.id, seed, steps, seconds, engine, notes, data };
}

/** What a PNG says of how it was made. */
export function settingsOf(model, seed, steps, label) {
  const { fewstep, engine } = model.computed;
  return { fewstep, model: model.about.id, seed, steps, class: label === null ? null : model.about.classes[label], engine };
}

export const seedOf = (body) => body.seed ?? Math.floor(Math.random() * SEEDS);

const wrong = (message, param) => Object.assign(new Error(message), { param });

/** A class by its name or number; null for none. */
export function classOf({ about }, name) {
  if (name === null || name === undefined || name === "") return null;
  if (!about.classes) throw wrong("This model has no classes.", "class");
  const found = about.classes.indexOf(String(name));
  if (found < 0) throw wrong(`Unknown class '${name}': the model's are ${about.classes.slice(0, 5).join(", ")}, …`, "class");
  return found;
}

/** The noise of a part of the images: their streams side by side. */
export function noiseOf(model, seed, indices) {
  const streams = indices.map((index) => new Stream(seed, index, model.size));
  return () => joined(streams.map((stream) => stream.normal()));
}

/** Numbers from `start` on, at most `rows` of them, up to `n`. */
export function* parts(n, rows) {
  for (let start = 0; start < n; start += rows)
    yield Array.from({ length: Math.min(rows, n - start) }, (_, i) => start + i);
}

/** Pictures of one batch, each as its bytes. */
export async function each(model, x) {
  const bytes = await model.pictures(x);
  const size = model.about.shape.reduce((a, b) => a * b);
  return Array.from({ length: bytes.length / size }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

export const pngOf = (model, bytes, settings) => {
  const [bands, height, width] = model.about.shape;
  return png(bytes, bands, height, width, settings);
};

export async function generate(model, body, context) {
  const began = performance.now();
  const { n } = body;
  const seed = seedOf(body);
  const guidance = guidanceOf(model, body);
  const program = withGuidance(await programOf(model, body), body.guidance === undefined ? null : guidance);
  const steps = program.stages.length;
  const one = classOf(model, body.class);
  const classes = model.about.classes?.length;
  const label = (i) => (classes ? one ?? i % classes : null);
  const settings = (i) => ({ ...settingsOf(model, seed, steps, label(i)), sampler: program.spec, index: i });
  const levels = guidance?.interval && (await noiseLevels(model, program));
  const data = [];
  let packing = 0; // milliseconds, which are not the model's
  const packed = async (...given) => {
    const before = performance.now();
    const b64_json = await pngOf(model, ...given);
    packing += performance.now() - before;
    return b64_json;
  };
  for (const indices of parts(n, model.rows)) {
    const strips = indices.map(() => []);
    const onState = async (step, x) => {
      if (!(body.strip || step === steps)) return;
      for (const [k, bytes] of (await each(model, x)).entries()) {
        const i = indices[k];
        const b64_json = await packed(bytes, { ...settings(i), ...(body.strip && { step }) });
        strips[k].push(b64_json);
        context.partial({ index: i, step, steps, b64_json });
      }
    };
    const labels = indices.map(label);
    const x = await walk(program, {
      draw: noiseOf(model, seed, indices),
      evaluate: model.guided(guidance, labels),
      levels,
      onState,
      pause: () => context.pause(),
    });
    for (const [k, bytes] of (await each(model, x)).entries()) {
      const i = indices[k];
      const image = { b64_json: await packed(bytes, settings(i)), seed, index: i, class: settings(i).class };
      data.push({ ...image, ...(body.strip && { strip: strips[k] }) });
    }
  }
  return answer(model, seed, steps, began + packing, data);
}

/** The program of a request: of its number of steps, or of the time points that it gives. */
async function programOf(model, { sampler, steps }) {
  const { programs, default_steps } = model.about;
  const spec = sampler?.trim();
  if (!spec) {
    const known = Object.keys(programs);
    const asked = steps ?? default_steps;
    if (!programs[asked]) throw wrong(`This page knows ${known[0]} to ${known.at(-1)} steps, not ${asked}.`, "steps");
    return programs[asked];
  }
  const same = Object.values(programs).find((program) => program.spec === spec);
  if (same) return same;
  const times = timesOf(spec);
  if (!times || !model.about.maps)
    throw wrong(`This page knows the sampler ${programs[default_steps].spec}${model.about.maps ? " and others such as jumps(times=(0.8,))" : ""} only; fewstep serve knows all.`, "sampler");
  const { T, eps, prior } = model.computed;
  const all = [T, ...times, eps];
  if (all.some((t, i) => i && !(t < all[i - 1]))) throw wrong(`Time points must decrease between T=${T} and eps=${eps}, got ${times.join(", ")}.`, "sampler");
  const made = await jumps(model, [T, ...times], [[prior, "z0"]]);
  return { ...made, spec: times.length ? `jumps(times=(${times.map(python).join(", ")}${times.length === 1 ? "," : ""}))` : "jumps" };
}

/** The time points of jumps(times=(...)); null for every other spec. */
function timesOf(spec) {
  const found = /^jumps(?:\(\s*(?:times\s*=\s*[([]([^()[\]]*)[)\]]\s*)?\))?$/.exec(spec);
  if (!found) return null;
  const times = (found[1] ?? "").split(",").map((t) => t.trim()).filter(Boolean).map(Number);
  return times.every(Number.isFinite) ? times : null;
}

/** A number as Python writes it. */
const python = (number) => (Number.isInteger(number) ? number.toFixed(1) : String(number));

/** The guidance of a request, or that of the model; null for none. */
function guidanceOf({ about, computed }, body) {
  const w = body.guidance ?? about.guidance;
  if (w === null || w === undefined || !about.guides) return null;
  if (!(w >= 0 && Number.isFinite(w))) throw wrong("A guidance weight is a number from 0 on.", "guidance");
  const interval = body.guidance_interval ?? (body.guidance === undefined ? computed.interval : null);
  if (interval && computed.inputs.includes("guidance") && !computed.inputs.includes("interval")) throw wrong("This model takes the guidance weight at every noise level: leave out the interval.", "guidance");
  if (interval && !(0 <= interval[0] && interval[0] < interval[1])) throw wrong("Guidance applies between two noise levels, low < high.", "guidance");
  return { w, interval };
}

const GUIDED = /(, )?guidance=guided\((?:[^()]|\([^()]*\))*\)/; // in a spec

/** The program, its spec naming the guidance that was asked for as Python does. */
function withGuidance(program, guidance) {
  if (!guidance) return program;
  const interval = guidance.interval ? `, interval=(${guidance.interval.map(python).join(", ")})` : "";
  const said = `guidance=guided(w=${python(guidance.w)}${interval})`;
  const spec = program.spec.replace(GUIDED, "").replace("()", "");
  return { ...program, spec: spec.endsWith(")") ? `${spec.slice(0, -1)}, ${said})` : `${spec}(${said})` };
}

export async function interpolate(model, body, context) {
  const began = performance.now();
  const { from, to, frames } = body;
  const { about, computed } = model;
  const guidance = guidanceOf(model, body);
  const own = computed.walks || body.sampler || body.guidance !== undefined; // goes its own way
  const times = own ? null : computed.jumps[body.steps ?? about.default_steps];
  const label = about.classes ? classOf(model, body.class) ?? from.index % about.classes.length : null;
  const [a, b] = [from, to].map(({ seed, index }) => new Stream(seed, index, model.size).normal());
  const program = times
    ? await jumps(model, [computed.T, ...times], [[computed.prior, "y"]])
    : fromGiven(withGuidance(await programOf(model, body), body.guidance === undefined ? null : guidance));
  const steps = program.stages.length;
  const levels = guidance?.interval && (await noiseLevels(model, program));
  const common = { ...settingsOf(model, from.seed, steps, label), ...(times ? {} : { sampler: program.spec }), from, to };
  const data = [];
  for (const numbers of parts(frames, model.rows)) {
    const stream = new Stream(from.seed, 0, model.size); // all frames have the noise of image 0
    const draw = () => {
      const z = stream.normal();
      return joined(numbers.map(() => z));
    };
    draw(); // the first is the latent
    const y = joined(numbers.map((k) => slerp(a, b, k / (frames - 1))));
    const evaluate = model.guided(guidance, numbers.map(() => label));
    const x = await walk(program, { given: { y }, draw, evaluate, levels, pause: () => context.pause() });
    context.say(`Frame ${numbers.at(-1) + 1} of ${frames}`);
    for (const [k, bytes] of (await each(model, x)).entries()) {
      const frame = numbers[k];
      data.push({ b64_json: await pngOf(model, bytes, { ...common, frame }), index: frame });
    }
  }
  return answer(model, from.seed, steps, began, data);
}

/** A program whose first noise is given. */
function fromGiven(program) {
  const renamed = (terms) => terms.map(([c, name]) => [c, name === "z0" ? "y" : name[0] === "z" ? `z${name.slice(1) - 1}` : name]);
  const stages = program.stages.map(([evaluations, state]) => [
    evaluations.map(([t, s, point]) => [t, s, renamed(point)]),
    renamed(state),
  ]);
  return { ...program, stages };
}

/** Between two noises on a sphere: see fewstep.editing.slerp. */
function slerp(a, b, alpha) {
  if (alpha === 1) return b;
  const dot = (u, v) => u.reduce((total, value, i) => total + value * v[i], 0);
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const sine = Math.sin(angle);
  const [of, on] = sine < 1e-6 ? [1 - alpha, alpha] : [Math.sin((1 - alpha) * angle) / sine, Math.sin(alpha * angle) / sine];
  return a.map((value, i) => of * value + on * b[i]);
}
