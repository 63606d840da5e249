// PNG files of 8 bits to the bytes that they hold: a canvas would round the colours of what is
// transparent, and what an edit keeps comes back bit for bit.

const BANDS = { 0: 1, 2: 3, 4: 2, 6: 4 }; // by PNG's colour type; a palette is left to the browser

export const bigEndian = (bytes, at) =>
  ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;

/** The chunks of a PNG file as [type, data]. */
export function* chunks(bytes) {
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = bigEndian(bytes, at);
    yield [String.fromCharCode(...bytes.subarray(at + 4, at + 8)), bytes.subarray(at + 8, at + 8 + length)];
    at += length + 12;
  }
}

/** Size and planes of a plain PNG; null for one of another kind, or for what is none. */
export async function decodedPng(bytes) {
  if (bigEndian(bytes, 0) !== 0x89504e47) return null;
  const parts = [...chunks(bytes)];
  const [, head] = parts[0] ?? [];
  if (head?.length !== 13 || head[8] !== 8 || head[12] !== 0 || !(head[9] in BANDS)) return null;
  if (parts.some(([type]) => type === "tRNS" || type === "eXIf")) return null;
  const [width, height, bands] = [bigEndian(head, 0), bigEndian(head, 4), BANDS[head[9]]];
  const packed = new Blob(parts.filter(([type]) => type === "IDAT").map(([, data]) => data));
  const rows = await inflated(packed);
  if (rows?.length !== height * (1 + width * bands)) return null;
  unfilter(rows, height, width * bands, bands);
  const planes = Array.from({ length: bands }, (_, band) =>
    Uint8Array.from({ length: width * height }, (_, i) => {
      const y = Math.floor(i / width);
      return rows[y * (1 + width * bands) + 1 + (i % width) * bands + band];
    }));
  const opaque = bands % 2 === 0 && !planes.at(-1).some((a) => a < 255);
  return { width, height, planes: opaque ? planes.slice(0, -1) : planes };
}

async function inflated(blob) {
  try {
    return new Uint8Array(await new Response(blob.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  } catch {
    return null;
  }
}

/** Undo the filter of each row, in place: PNG's specification, Section 9. */
function unfilter(rows, height, length, bands) {
  const stride = length + 1;
  for (let y = 0; y < height; y++) {
    const start = y * stride + 1;
    const kind = rows[start - 1];
    for (let i = 0; i < length; i++) {
      const left = i >= bands ? rows[start + i - bands] : 0;
      const up = y ? rows[start + i - stride] : 0;
      const corner = y && i >= bands ? rows[start + i - stride - bands] : 0;
      rows[start + i] += [0, left, up, (left + up) >> 1, paeth(left, up, corner)][kind] ?? 0;
    }
  }
}

function paeth(left, up, corner) {
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(left + up - corner - value));
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
