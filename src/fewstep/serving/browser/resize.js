// Planes of bytes in another size, as Pillow resizes them: bicubic, with antialiasing, in whole
// numbers; and cut into tiles, and put together again.

const BITS = 22; // behind the point of a weight
const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0);

/** For each place of `to` pixels: the first of `from` that counts, and the weights from it on. */
function weights(from, to) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
    const end = Math.min(from, Math.trunc(centre + 2 * wide + 0.5));
    const shares = Array.from({ length: end - first }, (_, i) => cubic(Math.abs((i + first - centre + 0.5) / wide)));
    const total = shares.reduce((a, b) => a + b, 0);
    return [first, shares.map((share) => Math.trunc((share / total) * 2 ** BITS + (share < 0 ? -0.5 : 0.5)))];
  });
}

/** Along one axis: `lines` of `from` pixels, `step` apart, each `next` after the last. */
function along(plane, from, to, lines, [step, next], [toStep, toNext]) {
  const out = new Uint8Array(lines * to);
  weights(from, to).forEach(([first, shares], place) => {
    for (let line = 0; line < lines; line++) {
      let total = 2 ** (BITS - 1);
      shares.forEach((share, i) => (total += share * plane[line * next + (first + i) * step]));
      out[line * toNext + place * toStep] = Math.min(255, Math.max(0, Math.floor(total / 2 ** BITS)));
    }
  });
  return out;
}

/** A plane [height, width] as one of [toHeight, toWidth]. */
function resizedPlane(plane, [height, width], [toHeight, toWidth]) {
  const across = (from, h) => (width === toWidth ? from : along(from, width, toWidth, h, [1, width], [1, toWidth]));
  const down = (from, w) => (height === toHeight ? from : along(from, height, toHeight, w, [w, 1], [w, 1]));
  // Pillow's order since its version 13; before, the rows always came first.
  const columnsFirst = height > toHeight && height - toHeight > 2 * (width - toWidth);
  return columnsFirst ? across(down(plane, width), toHeight) : down(across(plane, height), toWidth);
}

export const resized = (planes, size, to) => planes.map((plane) => resizedPlane(plane, size, to));

/** Where a place beyond the end is, in a picture that is reflected there. */
function reflected(i, length) {
  const place = i % (2 * length);
  return place < length ? place : 2 * length - 1 - place;
}

/** Planes as images of a size, each as its planes in a row: see fewstep.editing.pictures.cut. */
export function cut(planes, [height, width], [h, w], fit) {
  if (fit === "resize") return [flat(resized(planes, [height, width], [h, w]))];
  const tiles = [];
  for (let top = 0; top < height; top += h)
    for (let left = 0; left < width; left += w)
      tiles.push(flat(planes.map((plane) =>
        Uint8Array.from({ length: h * w }, (_, i) =>
          plane[reflected(top + Math.floor(i / w), height) * width + reflected(left + (i % w), width)]))));
  return tiles;
}

/** Images as the planes of one picture [height, width]. */
export function join(tiles, bands, [h, w], [height, width], fit) {
  const planesOf = (tile) => Array.from({ length: bands }, (_, band) => tile.subarray(band * h * w, (band + 1) * h * w));
  if (fit === "resize") return resized(planesOf(tiles[0]), [h, w], [height, width]);
  const columns = Math.ceil(width / w);
  return Array.from({ length: bands }, (_, band) =>
    Uint8Array.from({ length: height * width }, (_, i) => {
      const [y, x] = [Math.floor(i / width), i % width];
      const tile = tiles[Math.floor(y / h) * columns + Math.floor(x / w)];
      return tile[(band * h + (y % h)) * w + (x % w)];
    }));
}

export function flat(planes) {
  const all = new Uint8Array(planes.length * planes[0].length);
  planes.forEach((plane, i) => all.set(plane, i * plane.length));
  return all;
}
