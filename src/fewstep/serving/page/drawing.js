// Drawing on a picture, pixel by pixel: a mask, or strokes of colour.

const MEMORY = 64 * 2 ** 20; // bytes of the pictures that undo goes back to

/**
 * One layer over a picture, with as many pixels as it. Pixels are painted whole: no edge is
 * softened, so that a mask says of each pixel whether it is to be generated. Mouse, pen and touch
 * draw; so do the arrow keys with the space bar.
 */
export class Layer {
  constructor(canvas, cursor, tools) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.cursor = cursor;
    this.tools = tools; // { erase, size, colour }, shared with the toolbar
    this.past = [];
    this.changed = () => {};
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerleave", () => (this.cursor.hidden = !this.keys));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.point(null));
  }

  /** Empty, and of a size. */
  reset(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.past = [];
    this.keys = null;
    this.changed();
  }

  get pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Which pixels are painted, row by row. */
  get painted() {
    const { data } = this.pixels;
    return Uint8Array.from({ length: data.length / 4 }, (_, i) => (data[4 * i + 3] ? 1 : 0));
  }

  get empty() {
    return !this.painted.includes(1);
  }

  save() {
    this.past.push(this.pixels);
    const most = Math.max(1, Math.floor(MEMORY / (4 * this.canvas.width * this.canvas.height)));
    this.past.splice(0, this.past.length - Math.min(most, 100));
  }

  undo() {
    const last = this.past.pop();
    if (last) this.context.putImageData(last, 0, 0);
    this.changed();
  }

  clear() {
    this.save();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.changed();
  }

  invert() {
    this.save();
    this.paintWhere(this.painted.map((p) => 1 - p));
  }

  /** Replace what is painted by a mask, row by row. */
  paintWhere(mask) {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.context.fillStyle = this.tools.colour();
    mask.forEach((on, i) => {
      if (on) this.context.fillRect(i % this.canvas.width, Math.floor(i / this.canvas.width), 1, 1);
    });
    this.changed();
  }

  /** A mask picture: white where painted, to be generated. */
  mask() {
    const canvas = Object.assign(document.createElement("canvas"), { width: this.canvas.width, height: this.canvas.height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    this.painted.forEach((on, i) => image.data.set([255 * on, 255 * on, 255 * on, 255], 4 * i));
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /** Where an event points, in pixels of the picture. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.canvas.width,
      ((event.clientY - box.top) / box.height) * this.canvas.height,
    ];
  }

  down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.save();
    this.keys = null;
    this.last = this.at(event);
    this.line(this.last, this.last);
  }

  move(event) {
    const to = this.at(event);
    this.point(to);
    if (!this.canvas.hasPointerCapture(event.pointerId)) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const point of between.length ? between.map((e) => this.at(e)) : [to]) {
      this.line(this.last, point);
      this.last = point;
    }
  }

  line([x0, y0], [x1, y1]) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)));
    for (let k = 0; k <= steps; k++) this.stamp(x0 + ((x1 - x0) * k) / steps, y0 + ((y1 - y0) * k) / steps);
    this.changed();
  }

  /** The middle of the brush near a point: within a pixel for odd sizes, else between pixels. */
  middle(x) {
    return this.tools.size() % 2 ? Math.floor(x) + 0.5 : Math.round(x);
  }

  stamp(x, y) {
    const r = this.tools.size() / 2;
    const [cx, cy] = [this.middle(x), this.middle(y)];
    this.context.fillStyle = this.tools.colour();
    for (let row = Math.floor(cy - r); row < cy + r; row++) {
      const half = Math.sqrt(Math.max(0, r * r - (row + 0.5 - cy) ** 2));
      const from = Math.ceil(cx - half - 0.5);
      const to = Math.floor(cx + half - 0.5);
      if (to < from) continue;
      if (this.tools.erase()) this.context.clearRect(from, row, to - from + 1, 1);
      else this.context.fillRect(from, row, to - from + 1, 1);
    }
  }

  /** Show the brush over a point. */
  point(at) {
    this.cursor.hidden = !at;
    if (!at) return;
    const { width, height } = this.canvas;
    const size = this.tools.size();
    const [x, y] = at.map((v) => this.middle(v) - size / 2);
    Object.assign(this.cursor.style, {
      left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%`,
      width: `${(100 * size) / width}%`, height: `${(100 * size) / height}%`,
    });
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { width, height } = this.canvas;
    this.keys ??= [Math.floor(width / 2) + 0.5, Math.floor(height / 2) + 0.5];
    if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      this.keys = [Math.min(width - 0.5, Math.max(0.5, this.keys[0] + dx)), Math.min(height - 0.5, Math.max(0.5, this.keys[1] + dy))];
    } else if (event.key === " ") {
      this.save();
      this.line(this.keys, this.keys);
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
    this.point(this.keys);
  }
}

const LINKED = 4096; // pixels of a mask that still fits into a link

/** A mask as text for a link: its bits in base64url, or "" where it is too large. */
export function packed(painted) {
  if (painted.length > LINKED || !painted.includes(1)) return "";
  const bytes = new Uint8Array(Math.ceil(painted.length / 8));
  painted.forEach((on, i) => (bytes[i >> 3] |= on << (i & 7)));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function unpacked(text, length) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from({ length }, (_, i) => (bytes.charCodeAt(i >> 3) >> (i & 7)) & 1);
}
