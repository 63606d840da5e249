// Edits with a consistency model, in steps: Algorithm 4 of Song et al. 2023, SDEdit, and denoising.

import { png } from "./encode.js";
import { answer, classOf, noiseOf, parts, seedOf, settingsOf } from "./generating.js";
import { bytesOf, dataOf, joined } from "./numbers.js";
import { flat } from "./resize.js";
import { colourful, opened, transparent } from "./pictures.js";
import { taskOf } from "./tasks.js";
import { jumps, walk } from "./walks.js";

const GREY_LEVEL = 127.5; // grey levels per unit of data in [-1, 1]
const RHO = 7; // of Karras' grid, whose coordinate the strength is
const SETTINGS = ["strength", "factor", "sigma", "blur", "floor", "top", "bottom", "left", "right"];

export async function edit(model, { fields, files }, context) {
  const began = performance.now();
  const { about } = model;
  const picture = await opened(files.image, about.shape[0], "image");
  const label = classOf(model, fields.class);
  if (about.classes && label === null) throw Object.assign(new Error("Give the class."), { param: "class" });
  const task = await taskOf(fields, about, picture, files.mask);
  const n = Number(fields.n || 1);
  const seed = fields.seed === undefined || fields.seed === "" ? seedOf({}) : Number(fields.seed);
  const steps = Number(fields.steps || task.steps);
  const program = await programOf(model, task, steps);
  const images = Array.from({ length: n }, () => task.images).flat();
  const done = [];
  for (const indices of parts(images.length, model.rows)) {
    done.push(...(await part(model, task, program, images, indices, seed, label, context)));
    if (images.length > model.rows) context.say(`Image ${done.length} of ${images.length}`);
  }
  const notes = [...picture.notes, ...lost(task, picture, about), ...task.notes];
  const settings = { task: fields.task, ...given(fields), ...settingsOf(model, seed, steps, label), ...(notes.length && { notes }) };
  const data = [];
  for (let index = 0; index < n; index++) {
    const own = done.slice(index * task.images.length, (index + 1) * task.images.length);
    const planes = task.result(own);
    const b64_json = await png(flat(planes), planes.length, ...task.size, { ...settings, index });
    data.push({ b64_json, seed, index });
  }
  return answer(model, seed, steps, began, data, notes);
}

/** The steps of an edit, from the picture "y" on. */
async function programOf(model, task, steps) {
  const { computed } = model;
  if (task.sigma !== undefined) {
    const [t, alpha] = await timeOf(model, task.sigma / GREY_LEVEL);
    return { clip: false, stages: [[[[t, computed.ends, [[alpha, "y"]]]], [[1, "d0"]]]] };
  }
  const times = await timesOf(model, steps, task.strength ?? 1);
  const { alpha, sigma } = await model.levels(times.slice(0, 1));
  return jumps(model, times, [[alpha[0], "y"], [sigma[0], "z0"]]);
}

/** Decreasing times of an edit: see fewstep.editing.editing_times. */
async function timesOf(model, steps, strength) {
  const { T, jumps, strengths } = model.computed;
  if (strength === 1) {
    if (!jumps[steps]) throw Object.assign(new Error(`This page knows 1 to ${Object.keys(jumps).at(-1)} steps, not ${steps}.`), { param: "steps" });
    return [T, ...jumps[steps]];
  }
  const [a, b] = strengths.map((level) => level ** (1 / RHO));
  const times = [];
  for (let n = 0; n < steps; n++) {
    const [t] = await timeOf(model, (a + strength * (1 - n / steps) * (b - a)) ** RHO);
    times.push(t);
  }
  return times;
}

/** The time with `sigma / alpha` of a value, and `alpha` there: by search, as the ratio grows. */
async function timeOf(model, level) {
  const { t_min, T } = model.computed;
  const POINTS = 33;
  let [low, high] = [t_min, T];
  let found;
  for (let round = 0; round < 14; round++) {
    const times = Array.from({ length: POINTS }, (_, i) => low + ((high - low) * i) / (POINTS - 1));
    found = await model.levels(times);
    const above = found.sigma.findIndex((sigma, i) => sigma >= level * found.alpha[i]);
    if (above < 0) {
      const most = GREY_LEVEL * (found.sigma.at(-1) / found.alpha.at(-1));
      throw Object.assign(new Error(`This model knows noise up to ${most.toFixed(0)} grey levels.`), { param: "sigma" });
    }
    [low, high] = [times[Math.max(0, above - 1)], times[above]];
    found.alpha = found.alpha[above];
  }
  return [high, found.alpha];
}

/** Some of the images, edited: bytes of each. */
async function part(model, task, program, images, indices, seed, label, context) {
  const { size } = model;
  const rows = indices.map((i) => {
    const y = dataOf(images[i]);
    return task.reference ? task.reference(y) : y;
  });
  const operators = task.operator && indices.map((i) => task.operator(i % task.images.length));
  const row = (x, k) => x.subarray(k * size, (k + 1) * size);
  const restore = operators && ((x) => joined(operators.map((operator, k) => operator.restore(row(x, k), rows[k]))));
  const y = joined(operators ? rows.map((one, k) => operators[k].start(one)) : rows);
  const x = await walk(program, {
    given: { y },
    draw: noiseOf(model, seed, indices),
    evaluate: (point, t, s) => model.evaluate(point, t, s, indices.map(() => label)),
    restore,
    onState: (step) => context.say(`Step ${step} of ${program.stages.length}`),
    pause: () => context.pause(),
  });
  const bytes = bytesOf(x);
  return indices.map((_, k) => row(bytes, k));
}

/** The settings of the task itself that were given. */
function given(fields) {
  const numbers = SETTINGS.filter((name) => ![undefined, null, ""].includes(fields[name]));
  return { ...Object.fromEntries(numbers.map((name) => [name, Number(fields[name])])), ...(fields.fit && { fit: fields.fit }) };
}

/** What is lost of a picture, in sentences. */
function lost({ keeps, colours }, picture, { shape: [bands] }) {
  const notes = [];
  const what = keeps ? "what is generated" : "the result";
  if (colours && bands === 1 && colourful(picture)) notes.push(`image is in colour, but the model makes grey images: ${what} is grey.`);
  if (!keeps && transparent(picture)) notes.push("image is transparent in parts, which become white.");
  return notes;
}
