// The model: its graphs in onnxruntime-web, on one thread, since a plain web server allows no more.

import * as ort from "../ort/ort.js";
import { bytesOf } from "./numbers.js";

const HERE = new URL("../models/", import.meta.url);
const ENGINE = new URL("../ort/engine.wasm", import.meta.url);
const MIB = 2 ** 20;

/** A file as bytes; `say` is told how much of it is there. */
async function load(address, name, say) {
  const response = await fetch(address).catch(() => null);
  if (!response?.ok) throw new Error(`${name} cannot be loaded: ${new URL(address).pathname} is missing beside this page.`);
  const parts = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    say(`Loading ${name}: ${(size / MIB).toFixed(1)} MiB`);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

export class Model {
  /** A model of models.json; the first for no name. */
  static async load(name, say) {
    const { models } = JSON.parse(new TextDecoder().decode(await load(new URL("models.json", HERE), "the page", () => {})));
    const about = name === null ? models[0] : models.find(({ id }) => id === name);
    if (!about) throw new Error(`This page has no model ${name}.`);
    if (!ort.env.wasm.wasmBinary) {
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmPaths = { mjs: new URL("../ort/engine.js", import.meta.url).href };
      ort.env.wasm.wasmBinary = await load(ENGINE, "onnxruntime", say);
    }
    const session = async (part) =>
      ort.InferenceSession.create(await load(new URL(`${part}.onnx`, HERE), "the model", say), { executionProviders: ["wasm"] });
    return new Model(about, {
      map: await session("map"),
      process: await session("process"),
      decoder: about.computed.decodes ? await session("decoder") : null,
    });
  }

  constructor(about, sessions) {
    this.about = about;
    this.sessions = sessions;
    this.computed = about.computed;
    this.shape = this.computed.shape;
    this.size = this.shape.reduce((a, b) => a * b);
    // Few large images at once, so that a job can be cancelled between them.
    this.rows = this.size > 4096 ? 1 : this.size > 512 ? 8 : 64;
  }

  /** `alpha` and `sigma` of the process at times. */
  async levels(times) {
    const t = new ort.Tensor("float32", Float32Array.from(times), [times.length]);
    const { levels } = await this.sessions.process.run({ t });
    const column = (which) => times.map((_, i) => levels.data[2 * i + which]);
    return { alpha: column(0), sigma: column(1) };
  }

  /** The map from `t` to `s` of points [rows, ...shape], each with its class. */
  async evaluate(x, t, s, labels, weight, interval) {
    const rows = x.length / this.size;
    const column = (value) => new ort.Tensor("float32", new Float32Array(rows).fill(value), [rows]);
    const given = {
      x: () => new ort.Tensor("float32", x, [rows, ...this.shape]),
      t: () => column(t),
      s: () => column(s),
      label: () => new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [rows]),
      guidance: () => column(weight ?? this.computed.weight ?? 1),
      interval: () => {
        const levels = interval ?? [0, Infinity];
        return new ort.Tensor("float32", Float32Array.from({ length: 2 * rows }, (_, i) => levels[i % 2]), [rows, 2]);
      },
    };
    const { x0 } = await this.sessions.map.run(Object.fromEntries(this.computed.inputs.map((name) => [name, given[name]()])));
    return x0.data;
  }

  /** A map that is guided as asked: see fewstep.guidance. */
  guided(guidance, labels) {
    const { w, interval } = guidance ?? {};
    const none = labels.map(() => this.about.classes?.length ?? 0); // one past the last is no class
    return async (x, t, s, level) => {
      const off = w === undefined || w === 1 || this.computed.inputs.includes("guidance");
      if (off || (interval && !(interval[0] < level && level <= interval[1]))) return this.evaluate(x, t, s, labels, w, interval);
      const without = await this.evaluate(x, t, s, none);
      if (w === 0) return without;
      const towards = await this.evaluate(x, t, s, labels);
      return without.map((value, i) => value + w * (towards[i] - value));
    };
  }

  /** The pictures of points at the end: bytes, [rows, ...about.shape]. */
  async pictures(x) {
    const rows = x.length / this.size;
    if (!this.sessions.decoder) return bytesOf(x);
    const { images } = await this.sessions.decoder.run({ z: new ort.Tensor("float32", x, [rows, ...this.shape]) });
    return bytesOf(images.data);
  }
}
