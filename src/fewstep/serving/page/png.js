// PNG files as bytes: their text chunks, sheets of several images, and downloads.

export const KEY = "fewstep"; // the text chunk that holds the settings

export function bytesOf(b64) {
  return Uint8Array.from(atob(b64), (c) => c.charCodeAt(0));
}

export const blobOf = (b64) => new Blob([bytesOf(b64)], { type: "image/png" });
export const urlOf = (b64) => `data:image/png;base64,${b64}`;

/** The chunks of a PNG file as [type, data]. */
function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    yield [String.fromCharCode(...bytes.subarray(at + 4, at + 8)), bytes.subarray(at + 8, at + 8 + length)];
    at += length + 12;
  }
}

/** The settings inside a PNG, or null. The text is a tEXt chunk, or an uncompressed iTXt one. */
export function settingsOf(bytes) {
  for (const [type, data] of chunks(bytes)) {
    if (type !== "tEXt" && type !== "iTXt") continue;
    const end = data.indexOf(0);
    if (new TextDecoder("latin1").decode(data.subarray(0, end)) !== KEY) continue;
    // An iTXt chunk has two flags, a language and a translated keyword before its text.
    const start = type === "tEXt" ? end + 1 : data.indexOf(0, data.indexOf(0, end + 3) + 1) + 1;
    const text = new TextDecoder(type === "tEXt" ? "latin1" : "utf-8").decode(data.subarray(start));
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }
  return null;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export const crc = (bytes) => ~bytes.reduce((c, b) => CRC[(c ^ b) & 255] ^ (c >>> 8), -1) >>> 0;

/** A PNG with settings in a text chunk behind its header. */
function withSettings(bytes, settings) {
  // A tEXt chunk is Latin-1: what is not ASCII is escaped as JSON does it.
  const ascii = JSON.stringify(settings).replace(/[\u0080-\uffff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const body = new TextEncoder().encode(`tEXt${KEY}\0${ascii}`);
  const chunk = new Uint8Array(body.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view.setUint32(body.length + 4, crc(body));
  const head = 8 + 25; // the signature and IHDR
  return new Blob([bytes.subarray(0, head), chunk, bytes.subarray(head)], { type: "image/png" });
}

/**
 * Rows of images (base64 or canvases) on one sheet with a gap between them, as a PNG Blob. Smaller
 * ones are enlarged to the largest, with sharp pixels.
 */
export async function sheet(rows, settings) {
  const loaded = await Promise.all(rows.map((row) => Promise.all(row.map(drawable))));
  const all = loaded.flat();
  const width = Math.max(...all.map((i) => i.width));
  const height = Math.max(...all.map((i) => i.height));
  const gap = Math.max(1, Math.round(width / 16));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(...rows.map((row) => row.length)) * (width + gap) - gap;
  canvas.height = rows.length * (height + gap) - gap;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  loaded.forEach((row, y) => row.forEach((image, x) => {
    const scale = Math.min(width / image.width, height / image.height);
    context.drawImage(image, x * (width + gap), y * (height + gap), scale * image.width, scale * image.height);
  }));
  const blob = await pngOf(canvas);
  return withSettings(new Uint8Array(await blob.arrayBuffer()), settings);
}

const drawable = (image) => (typeof image === "string" ? createImageBitmap(blobOf(image)) : image);

export const pngOf = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** `items` in rows of about a square. */
export function squared(items) {
  const columns = Math.ceil(Math.sqrt(items.length));
  return Array.from({ length: Math.ceil(items.length / columns) }, (_, row) =>
    items.slice(row * columns, (row + 1) * columns));
}
