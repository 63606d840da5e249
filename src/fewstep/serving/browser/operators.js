// What an edit knows of a picture: see fewstep.editing.operators.
//
// There an invertible linear A has coordinates of which some are known. All of these A are
// orthogonal, so that putting the known coordinates of y back into x is x + P (y - x) with the
// projection P on them; it is what stands here. Each operator has `start(y)`, P y, and
// `restore(x, y)`, for one image as its planes in a row.

/** A = I: the pixels of a mask are known, one byte for each; of every plane. */
export function kept(mask) {
  const known = (i) => mask[i % mask.length];
  return {
    start: (y) => y.map((value, i) => (known(i) ? value : 0)),
    restore: (x, y) => x.map((value, i) => (known(i) ? y[i] : value)),
  };
}

/** An operator by its projection. */
const projecting = (project) => ({
  start: project,
  restore(x, y) {
    const change = project(y.map((value, i) => value - x[i]));
    return x.map((value, i) => value + change[i]);
  },
});

const GREY = [0.2989, 0.587, 0.114];

/** The grey value of each pixel is known. */
export function grey(area) {
  const length = Math.hypot(...GREY);
  const q = GREY.map((weight) => weight / length);
  return projecting((v) => {
    const out = new Float32Array(v.length);
    for (let i = 0; i < area; i++) {
      const along = q.reduce((total, weight, c) => total + weight * v[c * area + i], 0);
      q.forEach((weight, c) => (out[c * area + i] = weight * along));
    }
    return out;
  });
}

/** The mean of each patch of p x p pixels is known. */
export function means([bands, h, w], p) {
  return projecting((v) => {
    const out = new Float32Array(v.length);
    for (let band = 0; band < bands; band++)
      for (let top = 0; top < h; top += p)
        for (let left = 0; left < w; left += p) {
          const places = Array.from({ length: p * p }, (_, k) => (band * h + top + Math.floor(k / p)) * w + left + (k % p));
          const mean = places.reduce((total, at) => total + v[at], 0) / (p * p);
          for (const at of places) out[at] = mean;
        }
    return out;
  });
}

/** Rows of the orthonormal cosine transform of n numbers. */
const cosines = (n) =>
  Array.from({ length: n }, (_, i) =>
    Float64Array.from({ length: n }, (_, k) => Math.sqrt((i ? 2 : 1) / n) * Math.cos(((Math.PI * i) / n) * (k + 0.5))));

/** Each frequency of a picture times a gain of its own [h, w]. */
function filtered(v, [bands, h, w], gains) {
  const [rows, columns] = [cosines(h), cosines(w)];
  const out = new Float32Array(v.length);
  for (let band = 0; band < bands; band++) {
    const plane = v.subarray(band * h * w, (band + 1) * h * w);
    const at = (matrix, i, k) => matrix[i][k];
    const back = (matrix, i, k) => matrix[k][i];
    const seen = both(plane, h, w, rows, columns, at).map((value, i) => value * gains[i]);
    out.set(both(seen, h, w, rows, columns, back), band * h * w);
  }
  return out;
}

/** A matrix on the rows and one on the columns of a plane. */
function both(plane, h, w, rows, columns, at) {
  const half = new Float64Array(h * w);
  const whole = new Float64Array(h * w);
  for (let y = 0; y < h; y++)
    for (let j = 0; j < w; j++) for (let k = 0; k < w; k++) half[y * w + j] += plane[y * w + k] * at(columns, j, k);
  for (let i = 0; i < h; i++)
    for (let k = 0; k < h; k++) for (let x = 0; x < w; x++) whole[i * w + x] += at(rows, i, k) * half[k * w + x];
  return whole;
}

/** The frequencies that a Gaussian blur left at least `floor` of are known. */
export function frequencies(shape, blur, floor) {
  const [, h, w] = shape;
  const gains = Float64Array.from({ length: h * w }, (_, k) => {
    const [i, j] = [Math.floor(k / w) * (Math.PI / h), (k % w) * (Math.PI / w)];
    return Math.exp((-(blur ** 2) / 2) * (i ** 2 + j ** 2));
  });
  const known = gains.map((gain) => Number(gain >= floor));
  const undone = gains.map((gain) => (gain >= floor ? 1 / Math.max(gain, floor) : 0));
  return { ...projecting((v) => filtered(v, shape, known)), reference: (y) => filtered(y, shape, undone) };
}
