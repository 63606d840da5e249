// Pictures that a user brings, as planes of bytes: what fewstep.editing.opened and .pictures do.

import { bigEndian, decodedPng } from "./decode.js";

const OPAQUE = 255;
const HEADER = 29; // bytes of a PNG up to the end of its size and kind

/**
 * A picture as it came, and as the model sees it: `values` are its planes, grey or RGB, with alpha
 * as the last; `pixels` are `channels` planes, on white where it is transparent.
 */
export async function opened(blob, channels, name) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const { width, height, planes, notes } = await decoded(bytes, blob, name);
  const plain = onWhite(planes);
  const pixels = channels === 1 ? [plain.length === 1 ? plain[0] : greyOf(plain)] : plain.length === 1 ? [plain[0], plain[0], plain[0]] : plain;
  const grey = planes.length < 3 || channels === 1;
  return { name, width, height, values: planes, pixels, grey, notes };
}

async function decoded(bytes, blob, name) {
  const exact = await decodedPng(bytes);
  if (exact) return { ...exact, notes: [] };
  let image;
  try {
    image = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is not a picture that the browser can open.`);
  }
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const all = Array.from({ length: 4 }, (_, band) => Uint8Array.from({ length: width * height }, (_, i) => data[4 * i + band]));
  const see = all[3].some((a) => a < OPAQUE);
  const planes = isGrey(bytes) ? [all[0], ...(see ? [all[3]] : [])] : see ? all : all.slice(0, 3);
  const notes = [];
  if (deep(bytes)) notes.push(`${name} has 16 bits, of which 8 are read.`);
  if (see) notes.push(`${name} is transparent in parts, where the browser rounds its colours.`);
  return { width, height, planes, notes };
}

const isPng = (bytes) => bytes.length > HEADER && bigEndian(bytes, 0) === 0x89504e47;
const deep = (bytes) => isPng(bytes) && bytes[24] === 16;

/** Whether a PNG or a JPEG stores grey values, by its header. */
function isGrey(bytes) {
  if (isPng(bytes)) return [0, 4].includes(bytes[25]);
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return false;
  for (let at = 2; at + 10 < bytes.length && bytes[at] === 0xff; ) {
    const [marker, length] = [bytes[at + 1], (bytes[at + 2] << 8) | bytes[at + 3]];
    const starts = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (starts) return bytes[at + 9] === 1;
    at += 2 + length;
  }
  return false;
}

export const transparent = ({ values }) => values.length % 2 === 0 && values.at(-1).some((a) => a < OPAQUE);

export const colourful = ({ values: [r, g, b, ...rest] }) =>
  rest.length <= 1 && b !== undefined && r.some((v, i) => v !== g[i] || v !== b[i]);

/** Planes without alpha, on white: as Pillow composites. */
function onWhite(planes) {
  if (planes.length % 2) return planes;
  const alpha = planes.at(-1);
  return planes.slice(0, -1).map((plane) =>
    plane.map((value, i) => {
      const share = alpha[i] * 128;
      const mixed = value * share + OPAQUE * (OPAQUE * 128 - share) + (128 << 7);
      return (((mixed >> 8) + mixed) >> 8) >> 7;
    }));
}

/** RGB as grey values, as Pillow weighs them. */
export const greyOf = ([r, g, b]) => r.map((_, i) => (r[i] * 19595 + g[i] * 38470 + b[i] * 7471 + 0x8000) >> 16);

/** Generated planes in the bands of a picture, opaque: see fewstep.editing.pictures.Picture.like. */
export function like({ values }, planes) {
  const colours = values.length < 3 ? 1 : 3;
  const plain = colours < planes.length ? [greyOf(planes)] : Array.from({ length: colours }, (_, i) => (planes[i] ?? planes[0]).slice());
  return values.length > colours ? [...plain, plain[0].map(() => OPAQUE)] : plain;
}

/** Where a mask is bright: one byte for each pixel. */
export async function holeOf(blob, picture) {
  const mask = await opened(blob, 1, "mask");
  if (mask.width !== picture.width || mask.height !== picture.height)
    throw new Error(`The mask has ${mask.width}×${mask.height} pixels, but the picture ${picture.width}×${picture.height}.`);
  const hole = mask.pixels[0].map((value) => Number(value > OPAQUE / 2));
  if (!hole.includes(1)) throw new Error("The mask covers nothing: paint over what is to be made anew.");
  return hole;
}
