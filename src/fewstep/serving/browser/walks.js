// Samplers as lists of sums, which one loop follows: see fewstep.exchange.graphs.sums.
//
// A program has stages [[[t, s, point], ...], state]: evaluations of the map from `t` to `s` at a
// point, and the state that follows. Points and states are sums [[coefficient, name], ...] of the
// last state "x", noises "z0", "z1", ... and evaluations "d0", "d1", ...; what is edited is "y".

import { sum } from "./numbers.js";

/**
 * Follow a program; what stands after each stage is given to `onState(number, x)`.
 *
 * `given` are numbers by name; `draw()` is the next noise; `evaluate(x, t, s, level)` is the map;
 * `restore(x)` puts back what is known of the picture after each stage.
 */
export async function walk(program, { given = {}, draw, evaluate, levels, restore = (x) => x, onState, pause }) {
  const have = new Map(Object.entries(given));
  const needed = lastStages(program);
  let drawn = 0;
  let evaluated = 0;
  const value = (name) => {
    while (!have.has(name) && name[0] === "z") have.set(`z${drawn++}`, draw());
    return have.get(name);
  };
  const add = (terms) => sum(terms.map(([c, name]) => [c, value(name)]));
  for (const [number, [evaluations, state]] of program.stages.entries()) {
    for (const [t, s, point] of evaluations) {
      await pause?.();
      const d = await evaluate(add(point), t, s, levels?.get(t));
      have.set(`d${evaluated++}`, program.clip ? d.map((v) => Math.min(1, Math.max(-1, v))) : d);
    }
    have.set("x", restore(add(state)));
    for (const name of have.keys()) if (name !== "x" && !(needed.get(name) > number)) have.delete(name);
    await onState?.(number + 1, have.get("x"));
  }
  return have.get("x");
}

/** The last stage in which each name is used. */
function lastStages({ stages }) {
  const last = new Map();
  for (const [number, [evaluations, state]] of stages.entries())
    for (const terms of [...evaluations.map(([, , point]) => point), state])
      for (const [, name] of terms) last.set(name, number);
  return last;
}

/** `sigma / alpha` of every time of a program, by the time. */
export async function noiseLevels(model, { stages }) {
  const times = [...new Set(stages.flatMap(([evaluations]) => evaluations.map(([t]) => t)))];
  const { alpha, sigma } = await model.levels(times);
  return new Map(times.map((t, i) => [t, sigma[i] / alpha[i]]));
}

/**
 * Multistep consistency sampling (Song et al. 2023, Algorithm 1) from a first point: jumps to the
 * end, and between them the forward process back up to the next time.
 */
export async function jumps(model, times, first) {
  const { ends, eps } = model.computed;
  const used = first.filter(([, name]) => name[0] === "z").length;
  const { alpha, sigma } = await model.levels([eps, ...times]);
  const stages = times.map((t, n) => {
    const a = alpha[n + 1] / alpha[0];
    const b = Math.sqrt(Math.max(0, sigma[n + 1] ** 2 - (a * sigma[0]) ** 2));
    const point = n ? [[a, "x"], [b, `z${used + n - 1}`]] : first;
    return [[[t, ends, point]], [[1, `d${n}`]]];
  });
  return { clip: false, stages };
}
