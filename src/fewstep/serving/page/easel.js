// The picture that is to be edited, with a layer of strokes and a mask over it, and the tools.

import { Layer } from "./drawing.js";
import { pngOf } from "./png.js";
import { el, sharpen } from "./widgets.js";

const MASK = "#ff5a1f"; // shown half transparent
const GREYS = ["#ffffff", "#aaaaaa", "#555555", "#000000"];
const COLOURS = ["#ffffff", "#000000", "#d62828", "#f4a522", "#3a8f3a", "#2f6fb5", "#7a4b2a", "#e7b8a0"];

export class Easel {
  constructor(root) {
    this.root = root;
    this.picture = root.querySelector("canvas.picture");
    this.tools = root.querySelector(".tools");
    this.layers = root.querySelector(".layers");
    this.empty = root.querySelector(".canvas-frame .empty");
    this.erasing = false;
    const cursor = el("span", { className: "cursor", hidden: true });
    const strokes = root.querySelector("canvas.drawing");
    const mask = strokes.cloneNode();
    strokes.classList.add("strokes");
    mask.classList.add("mask");
    this.layers.append(mask, cursor);
    const tools = { erase: () => this.erasing, size: () => Number(this.tool("size").value) };
    this.strokes = new Layer(strokes, cursor, { ...tools, colour: () => this.tool("colour").value });
    this.mask = new Layer(mask, cursor, { ...tools, colour: () => MASK });
    this.strokes.changed = this.mask.changed = () => this.changed();
    this.tools.addEventListener("click", (event) => this.use(event.target.dataset?.tool));
    this.tool("size").addEventListener("input", () => this.showSize());
    this.tool("colour").addEventListener("input", () => this.use("draw"));
    this.onChange = () => {};
    this.mode = null;
  }

  tool(name) {
    return this.tools.querySelector(`[data-tool=${name}]`);
  }

  get layer() {
    return { mask: this.mask, strokes: this.strokes }[this.mode] ?? null;
  }

  /** Put a picture (an ImageBitmap or a canvas) on; it is drawn on white where it is transparent. */
  put(image) {
    const { width, height } = image;
    Object.assign(this.picture, { width, height });
    const context = this.picture.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(image, 0, 0);
    for (const layer of [this.strokes, this.mask]) {
      layer.reset(width, height);
      sharpen(layer.canvas, width);
    }
    sharpen(this.picture, width);
    this.layers.style.aspectRatio = `${width} / ${height}`;
    this.layers.hidden = false;
    this.empty.hidden = true;
    const size = this.tool("size");
    size.max = Math.max(4, Math.round(Math.min(width, height) / 3));
    size.value = Math.max(2, Math.round(Math.min(width, height) / 12));
    this.showSize();
    this.show(this.mode);
  }

  get filled() {
    return !this.layers.hidden;
  }

  /** Which layer is drawn on: "mask", "strokes" or null. */
  show(mode) {
    this.mode = mode;
    this.tools.hidden = !mode || !this.filled;
    for (const part of this.tools.querySelectorAll("[data-mode]")) part.hidden = part.dataset.mode !== mode;
    this.mask.canvas.hidden = mode !== "mask";
    for (const layer of [this.strokes, this.mask]) {
      layer.canvas.classList.toggle("active", layer === this.layer);
      layer.canvas.tabIndex = layer === this.layer ? 0 : -1;
    }
    this.changed();
  }

  /** Colours to choose from: greys where the model knows no others. */
  palette(grey) {
    const swatches = this.tools.querySelector(".swatches");
    swatches.replaceChildren(...(grey ? GREYS : COLOURS).map((colour) => {
      const swatch = el("button", { type: "button", className: "swatch", title: colour, ariaLabel: `Colour ${colour}` });
      swatch.style.background = colour;
      swatch.addEventListener("click", () => {
        this.tool("colour").value = colour;
        this.use("draw");
      });
      return swatch;
    }));
  }

  use(tool) {
    if (tool === "draw" || tool === "erase") this.erasing = tool === "erase";
    if (["undo", "clear", "invert"].includes(tool)) this.layer[tool]();
    this.tool("draw").setAttribute("aria-pressed", String(!this.erasing));
    this.tool("erase").setAttribute("aria-pressed", String(this.erasing));
  }

  showSize() {
    const { value } = this.tool("size");
    this.tools.querySelector(".brush output").value = `${value} px`;
  }

  changed() {
    this.tool("undo").disabled = !this.layer?.past.length;
    this.onChange?.();
  }

  /** The picture under its strokes. */
  get seen() {
    const canvas = el("canvas", { width: this.picture.width, height: this.picture.height });
    const context = canvas.getContext("2d");
    context.drawImage(this.picture, 0, 0);
    context.drawImage(this.strokes.canvas, 0, 0);
    return canvas;
  }

  /** What is sent: the file as it came, or the picture with its strokes where there are any. */
  image(file) {
    return file && this.strokes.empty ? file : pngOf(this.seen);
  }
}
