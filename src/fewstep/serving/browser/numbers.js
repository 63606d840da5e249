// Pictures as numbers and back, and sums of many numbers.

const f32 = Math.fround;

/** Bytes as data in [-1, 1]. */
export const dataOf = (bytes) => Float32Array.from(bytes, (b) => f32(b / 127.5) - 1);

/** Data about [-1, 1] as bytes. */
export function bytesOf(x) {
  const bytes = new Uint8Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const value = f32(f32(x[i] + 1) * 127.5);
    if (!Number.isFinite(value)) throw new Error("The model gives numbers that are no picture: it may be broken.");
    bytes[i] = even(Math.min(255, Math.max(0, value)));
  }
  return bytes;
}

/** The nearest whole number, the even one of two. */
export function even(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

/** `sum_k c_k r_k` of [coefficient, numbers]. */
export function sum(terms) {
  const out = new Float32Array(terms[0][1].length);
  for (let i = 0; i < out.length; i++) {
    let value = 0;
    for (const [c, numbers] of terms) value += c * numbers[i];
    out[i] = value;
  }
  return out;
}

/** Arrays of one kind, one after the other. */
export function joined(arrays) {
  const all = new arrays[0].constructor(arrays.reduce((n, a) => n + a.length, 0));
  let at = 0;
  for (const one of arrays) {
    all.set(one, at);
    at += one.length;
  }
  return all;
}
