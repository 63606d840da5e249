// Edits of pictures by name, and their settings: see fewstep.editing.tasks.
//
// A task is made from a request's fields, a model and a picture. It has `images`, what the model
// edits, as bytes; `size` of the result; `result(images, n)`, the planes of the result; and either an
// `operator` with what is known of each image, a `strength`, or a `sigma`.

import { even } from "./numbers.js";
import { frequencies, grey, kept, means } from "./operators.js";
import { greyOf, holeOf, like } from "./pictures.js";
import { cut, flat, join, resized } from "./resize.js";

const MOST_PIXELS = 2 ** 24; // of all results

const wrong = (message, param) => Object.assign(new Error(message), { param });
const sizeOf = ({ height, width }) => [height, width];

/** A number of a form; the default where it is empty. */
function number(fields, name, otherwise, fits, says) {
  const text = fields[name];
  const value = text === undefined || text === null || text === "" ? otherwise : Number(text);
  if (value !== null && !(Number.isFinite(value) && fits(value))) throw wrong(says, name);
  return value;
}

/** The bytes of a task's result for a picture that is stretched or edited in tiles. */
function plain(picture, tiles, [bands, h, w], size, fit) {
  const planes = join(tiles, bands, [h, w], size, fit);
  return picture.grey && bands === 3 ? [greyOf(planes)] : planes;
}

/** What most tasks share. */
function common(fields, [bands, h, w], picture, fit) {
  return {
    images: cut(picture.pixels, sizeOf(picture), [h, w], fit),
    size: sizeOf(picture),
    result: (tiles) => plain(picture, tiles, [bands, h, w], sizeOf(picture), fit),
  };
}

const strokes = (otherwise) => (fields, { shape }, picture) => ({
  ...common(fields, shape, picture, fields.fit ?? "resize"),
  steps: 2,
  strength: number(fields, "strength", otherwise, (s) => s > 0 && s <= 1, "The strength must be above 0 and at most 1."),
});

const TASKS = {
  async inpaint(fields, { shape: [bands, h, w] }, picture, mask) {
    if (!mask) throw wrong("Inpainting needs a mask.", "mask");
    const hole = await holeOf(mask, picture);
    const fit = fields.fit ?? "resize";
    const masks = holes(hole, sizeOf(picture), [h, w], fit).map((part) => part.map((on) => 1 - on));
    const shared = common(fields, [bands, h, w], picture, fit);
    return {
      ...shared,
      keeps: true,
      operator: (i) => kept(masks[i]),
      notes: hole.includes(0) ? [] : [`the mask covers all of ${picture.name}: nothing of it is kept.`],
      result(tiles) {
        const made = like(picture, join(tiles, bands, [h, w], sizeOf(picture), fit));
        return made.map((plane, band) => plane.map((value, i) => (hole[i] ? value : picture.values[band][i])));
      },
    };
  },

  outpaint(fields, { shape: [bands, h, w] }, picture) {
    const margin = (name) => number(fields, name, 0, (m) => Number.isInteger(m) && m >= 0, "A margin is a whole number from 0 on.");
    const [top, bottom, left, right] = ["top", "bottom", "left", "right"].map(margin);
    if (!(top + bottom + left + right)) throw wrong("Outpainting needs a margin: top, bottom, left or right.", "right");
    const [inside, across] = [h - top - bottom, w - left - right];
    if (inside < 1 || across < 1) throw wrong(`Margins of ${top} + ${bottom} rows and ${left} + ${right} columns leave nothing of ${h}×${w} pixels.`, "right");
    const within = (i) => {
      const [y, x] = [Math.floor(i / w) - top, (i % w) - left];
      return y >= 0 && y < inside && x >= 0 && x < across ? y * across + x : -1;
    };
    const seen = resized(picture.pixels, sizeOf(picture), [inside, across]);
    const canvas = seen.map((plane) => Uint8Array.from({ length: h * w }, (_, i) => (within(i) < 0 ? 0 : plane[within(i)])));
    const mask = Uint8Array.from({ length: h * w }, (_, i) => Number(within(i) >= 0));
    const [H, W] = sizeOf(picture);
    const [above, below] = [top, bottom].map((m) => even(m * (H / inside)));
    const [before, after] = [left, right].map((m) => even(m * (W / across)));
    const size = [above + H + below, before + W + after];
    return {
      images: [flat(canvas)],
      size,
      keeps: true,
      operator: () => kept(mask),
      result(tiles) {
        const made = like(picture, join(tiles, bands, [h, w], size, "resize"));
        return made.map((plane, band) => {
          for (let y = 0; y < H; y++)
            plane.set(picture.values[band].subarray(y * W, (y + 1) * W), (above + y) * size[1] + before);
          return plane;
        });
      },
    };
  },

  colourise(fields, { shape: [bands, h, w] }, picture) {
    if (bands !== 3) throw wrong("This model makes grey images: it knows no colours.", "task");
    const seen = picture.pixels.length === 3 ? greyOf(picture.pixels) : picture.pixels[0];
    const fit = fields.fit ?? "resize";
    return {
      images: cut([seen, seen, seen], sizeOf(picture), [h, w], fit),
      size: sizeOf(picture),
      colours: false,
      operator: () => grey(h * w),
      result: (tiles) => join(tiles, bands, [h, w], sizeOf(picture), fit),
    };
  },

  superresolve(fields, { shape: [bands, h, w] }, picture) {
    const p = number(fields, "factor", 2, (f) => Number.isInteger(f) && f >= 2, "The factor is a whole number from 2 on.");
    if (h % p || w % p) throw wrong(`The factor ${p} does not divide the model's ${w}×${h} pixels.`, "factor");
    const fit = fields.fit ?? "tile";
    const small = cut(picture.pixels, sizeOf(picture), [h / p, w / p], fit);
    const size = sizeOf(picture).map((n) => p * n);
    return {
      images: small.map((image) =>
        Uint8Array.from({ length: bands * h * w }, (_, i) => {
          const [band, y, x] = [Math.floor(i / (h * w)), Math.floor((i % (h * w)) / w), i % w];
          return image[(band * (h / p) + Math.floor(y / p)) * (w / p) + Math.floor(x / p)];
        })),
      size,
      operator: () => means([bands, h, w], p),
      result: (tiles) => plain(picture, tiles, [bands, h, w], size, fit),
    };
  },

  deblur(fields, { shape }, picture) {
    const blur = number(fields, "blur", 1, (b) => b >= 0 && b <= 1000, "The blur is a number of pixels from 0 on.");
    const floor = number(fields, "floor", 0.1, (f) => f > 0 && f <= 1, "The floor must be above 0 and at most 1.");
    const known = frequencies(shape, blur, floor);
    return { ...common(fields, shape, picture, fields.fit ?? "tile"), operator: () => known, reference: known.reference };
  },

  strokes: strokes(0.6),
  vary: strokes(0.4),

  denoise(fields, { shape }, picture) {
    const sigma = number(fields, "sigma", null, (s) => s >= 0, "The noise is a number of grey levels from 0 on.");
    return { ...common(fields, shape, picture, "tile"), steps: 1, sigma: sigma ?? noiseLevel(picture) };
  },
};

/** The task that a request names, ready to be computed. */
export async function taskOf(fields, about, picture, mask) {
  const task = fields.task ?? "inpaint";
  if (!about.tasks.includes(task)) throw wrong(`This model does not offer the task '${task}'.`, "task");
  const made = { steps: 8, colours: true, keeps: false, notes: [], ...(await TASKS[task](fields, about, picture, mask)) };
  if (made.size[0] * made.size[1] * Number(fields.n ?? 1) > MOST_PIXELS)
    throw new Error(`A picture of ${picture.width}×${picture.height} pixels is too large for this: its results would have more than ${MOST_PIXELS} pixels.`);
  return made;
}

/** A hole in the images that a picture is cut to: a pixel is in it where any part of it is. */
function holes(hole, [height, width], [h, w], fit) {
  if (fit === "tile") return cut([hole], [height, width], [h, w], fit);
  const range = (i, from, to) => [Math.floor((i * from) / to), Math.ceil(((i + 1) * from) / to)];
  return [Uint8Array.from({ length: h * w }, (_, i) => {
    const [top, bottom] = range(Math.floor(i / w), height, h);
    const [left, right] = range(i % w, width, w);
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) if (hole[y * width + x]) return 1;
    return 0;
  })];
}

const MAD = 0.6744897501960817; // median of |z| of a standard normal z

/** The noise of a picture in grey levels, from its finest details: see fewstep.editing.noise_level. */
function noiseLevel({ pixels, height, width }) {
  if (Math.min(height, width) < 2) throw wrong("The noise of a picture this small cannot be estimated: give it.", "sigma");
  const details = [];
  for (const plane of pixels)
    for (let y = 0; y + 1 < height; y += 2)
      for (let x = 0; x + 1 < width; x += 2) {
        const at = y * width + x;
        details.push(Math.abs(plane[at] - plane[at + 1] - plane[at + width] + plane[at + width + 1]) / 2);
      }
  details.sort((a, b) => a - b);
  return details[Math.floor((details.length - 1) / 2)] / MAD;
}
