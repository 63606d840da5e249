// With how many pictures the page opens, by the time that one takes.

import * as api from "./api.js";

const PATIENCE = 2; // seconds in which pictures that nobody asked for must be there

/**
 * How many pictures of a model are there in a moment, at most `most`: none where a single one takes
 * longer. The server knows the time of those that it has made; where it has made none, one is made.
 */
export async function affordable(model, most) {
  if (model.seconds_per_image === null) model.seconds_per_image = await measured(model);
  return Math.min(most, Math.floor(PATIENCE / model.seconds_per_image));
}

async function measured(model) {
  const late = AbortSignal.timeout(1000 * PATIENCE);
  const one = () => api.generate({ model: model.id, seed: 0, n: 1, steps: model.default_steps }, { signal: late });
  try {
    const { seconds } = await one();
    return seconds > PATIENCE / 4 ? seconds : (await one()).seconds; // the first of a model is slower than others
  } catch {
    return Infinity; // too slow, or not to be had, which is said when somebody asks
  }
}
