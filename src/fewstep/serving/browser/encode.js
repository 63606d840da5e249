// Bytes of a picture as a PNG that carries its settings, in base64.

import { crc } from "../png.js";

const KEY = "fewstep"; // the text chunk that holds the settings
const COLOURS = { 1: 0, 2: 4, 3: 2, 4: 6 }; // PNG's colour type by the number of bands

const text = new TextEncoder();

function chunk(type, data) {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(text.encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, crc(bytes.subarray(4, data.length + 8)));
  return bytes;
}

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Planes of bytes [bands, height, width] as a PNG in base64. */
export async function png(planes, bands, height, width, settings) {
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, COLOURS[bands], 0, 0, 0], 8);
  const rows = new Uint8Array(height * (width * bands + 1)); // each begins with its filter, none
  for (let y = 0, at = 0; y < height; y++) {
    at++;
    for (let x = 0; x < width; x++)
      for (let band = 0; band < bands; band++) rows[at++] = planes[(band * height + y) * width + x];
  }
  // Neither compressed, nor with a language or a translated keyword.
  const said = text.encode(`${KEY}\0\0\0\0\0${JSON.stringify(settings)}`);
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const parts = [signature, chunk("IHDR", head), chunk("iTXt", said), chunk("IDAT", await deflated(rows)), chunk("IEND", new Uint8Array())];
  return base64(new Uint8Array(await new Blob(parts).arrayBuffer()));
}

function base64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 2 ** 15) binary += String.fromCharCode(...bytes.subarray(at, at + 2 ** 15));
  return btoa(binary);
}
