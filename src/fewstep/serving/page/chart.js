// A chart of several runs over their steps: curves, what they were before smoothing, values under the pointer.

import { el } from "./widgets.js";

const SPACE = { left: 56, right: 10, top: 8, bottom: 24 };
const HEIGHT = 210;
const SPREAD = 30; // times the smallest value, from which a scale that is to fit is logarithmic
const FEW = 16; // values up to which each has a dot
const NS = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A number in few characters. */
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return String(Number(value.toPrecision(3)));
}

/** A running mean of points with a memory; its beginning is not drawn towards zero. */
export function smoothed(points, memory) {
  if (!memory) return points;
  let mean = 0, weight = 0;
  return points.map(([x, y]) => {
    mean = memory * mean + (1 - memory) * y;
    weight = memory * weight + (1 - memory);
    return [x, mean / weight];
  });
}

/** At most two points for each of `width` places, the lowest and the highest, so that no peak is lost. */
export function thinned(points, width) {
  if (points.length <= 2 * width) return points;
  const kept = [];
  const per = points.length / width;
  for (let k = 0; k < width; k++) {
    const some = points.slice(Math.floor(k * per), Math.floor((k + 1) * per));
    const low = some.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = some.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] < high[0] ? [low, high] : high === low ? [low] : [high, low]));
  }
  return kept;
}

/** Round numbers between two, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((f) => f * unit >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * step);
}

function decades(low, high) {
  const powers = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++) powers.push(k);
  const factors = powers.length > 4 ? [1] : [1, 2, 5];
  const found = powers.flatMap((k) => factors.map((f) => f * 10 ** k)).filter((v) => v >= low * 0.999 && v <= high * 1.001);
  const every = Math.ceil(found.length / 6);
  return found.length > 1 ? found.filter((_, i) => i % every === 0) : ticks(low, high, 4).filter((v) => v > 0);
}

export class Chart {
  /** `linear`: the scale that fits; `noisy`: whether the values are worth smoothing. */
  constructor(title, { note = "", linear = false, noisy = false } = {}) {
    Object.assign(this, { title, linear, noisy });
    this.note = el("small", { className: "note" });
    this.heading = el("h2", {}, title, note && el("small", {}, ` ${note}`), this.note);
    this.svg = svg("svg", { role: "img", height: HEIGHT });
    this.values = el("div", { className: "values", hidden: true });
    this.plot = el("div", { className: "plot" });
    this.plot.append(this.svg, this.values);
    this.element = el("figure", { className: "chart" }, this.heading, this.plot);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  /**
   * Curves to be shown: `{ name, colour, dash, points: [[step, value]], errors: [[step, error]] }`.
   * `scale` is "fits", "linear" or "log"; `memory` that of the smoothing, from 0 to 1.
   */
  show(curves, { scale, memory, last }) {
    Object.assign(this, { curves, scale, memory: this.noisy ? memory : 0, last });
    this.draw();
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width || !this.curves) return;
    this.width = width;
    const logarithmic = this.logarithmic();
    const inside = (points) => (logarithmic ? points.filter(([, y]) => y > 0) : points);
    const lost = this.curves.reduce((n, c) => n + c.points.length - inside(c.points).length, 0);
    const notes = [logarithmic && "log", lost && `${lost} values up to 0 are not shown`].filter(Boolean);
    this.note.textContent = notes.length ? ` · ${notes.join(", ")}` : "";
    this.drawn = this.curves.map((curve) => {
      const raw = inside(curve.points);
      return { ...curve, raw, line: smoothed(raw, this.memory) };
    });
    this.measure(logarithmic);
    const parts = [this.axes(logarithmic)];
    for (const curve of this.drawn) parts.push(...this.paths(curve, logarithmic));
    this.cursor = svg("line", { class: "hair", y1: SPACE.top, y2: HEIGHT - SPACE.bottom, visibility: "hidden" });
    this.svg.replaceChildren(...parts, this.cursor);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("aria-label", this.summary());
  }

  logarithmic() {
    if (this.scale !== "fits") return this.scale === "log";
    if (this.linear) return false;
    const all = this.curves.flatMap((c) => c.points.map(([, y]) => y));
    const positive = all.filter((y) => y > 0);
    if (positive.length < 0.9 * all.length || !positive.length) return false;
    const sorted = positive.sort((a, b) => a - b);
    return sorted.at(-1) > SPREAD * sorted[Math.floor(sorted.length / 20)];
  }

  /** From steps and values to places. */
  measure(logarithmic) {
    const ys = this.drawn.flatMap(({ raw, line }) => [...(this.memory ? line : raw), ...(raw.length < 400 ? raw : [])]).map(([, y]) => y);
    let [low, high] = ys.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, -Infinity]);
    if (!(low <= high)) [low, high] = [logarithmic ? 0.1 : 0, 1];
    if (logarithmic) {
      const pad = Math.max(1.05, (high / low) ** 0.05);
      [low, high] = [low / pad, high * pad];
    } else {
      const pad = 0.06 * (high - low || Math.abs(high) || 1);
      [low, high] = [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
    }
    const end = Math.max(1, this.last, ...this.drawn.map(({ raw }) => raw.at(-1)?.[0] ?? 0));
    const across = (this.width - SPACE.left - SPACE.right) / end;
    const f = logarithmic ? Math.log : (v) => v;
    const up = (HEIGHT - SPACE.top - SPACE.bottom) / (f(high) - f(low));
    this.end = end;
    this.range = [low, high];
    this.x = (step) => SPACE.left + across * step;
    this.y = (value) => HEIGHT - SPACE.bottom - up * (f(Math.min(high, Math.max(low, value))) - f(low));
    this.stepAt = (x) => (x - SPACE.left) / across;
  }

  axes(logarithmic) {
    const group = svg("g", { class: "axes" });
    const right = this.width - SPACE.right;
    for (const value of logarithmic ? decades(...this.range) : ticks(...this.range, 4)) {
      const y = this.y(value);
      group.append(svg("line", { x1: SPACE.left, x2: right, y1: y, y2: y }));
      group.append(svg("text", { x: SPACE.left - 7, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    for (const step of ticks(0, this.end, Math.max(2, Math.floor(this.width / 110)))) {
      const x = this.x(step);
      group.append(svg("text", { x, y: HEIGHT - 7, "text-anchor": x > right - 14 ? "end" : "middle" }, short(step)));
    }
    return group;
  }

  paths({ colour, dash, raw, line, errors }, logarithmic) {
    const width = this.width - SPACE.left - SPACE.right;
    const along = (points) => thinned(points, width).map(([x, y], i) => `${i ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    const style = { stroke: colour, ...(dash && { "stroke-dasharray": dash }) };
    const paths = [];
    if (errors?.length) paths.push(svg("path", { class: "band", fill: colour, d: this.band(raw, errors, logarithmic) }));
    if (this.memory) paths.push(svg("path", { class: "raw", d: along(raw), stroke: colour }));
    paths.push(svg("path", { class: "curve", d: along(line), ...style }));
    if (line.length && line.length <= FEW)
      for (const [x, y] of line) paths.push(svg("circle", { cx: this.x(x), cy: this.y(y), r: 2.4, fill: colour }));
    return paths;
  }

  /** The error of each value, on both sides of it. */
  band(raw, errors, logarithmic) {
    const error = new Map(errors);
    const known = raw.filter(([x]) => error.has(x));
    const least = logarithmic ? this.range[0] : -Infinity;
    const side = (sign) => known.map(([x, y]) => `${this.x(x).toFixed(1)} ${this.y(Math.max(least, y + sign * error.get(x))).toFixed(1)}`);
    return known.length ? `M${[...side(1), ...side(-1).reverse()].join("L")}Z` : "";
  }

  summary() {
    const said = this.drawn.filter(({ raw }) => raw.length).map(({ name, raw }) => `${name} ${short(raw.at(-1)[1])} at step ${raw.at(-1)[0]}`);
    return `${this.title}: ${said.join("; ") || "nothing yet"}`;
  }

  /** The values under the pointer. */
  point(event) {
    const seen = (this.drawn ?? []).filter(({ line }) => line.length);
    const hidden = !event || !seen.length;
    this.values.hidden = hidden;
    this.cursor?.setAttribute("visibility", hidden ? "hidden" : "visible");
    if (hidden) return;
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    const wanted = this.stepAt(Math.min(Math.max(x, SPACE.left), this.width - SPACE.right));
    const found = seen.map((curve) => ({ ...curve, at: nearest(curve.line, wanted) }));
    const step = found.map(({ at }) => at[0]).reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    this.cursor.setAttribute("x1", this.x(step));
    this.cursor.setAttribute("x2", this.x(step));
    const rows = found.map(({ name, colour, at }) => {
      const dot = el("i");
      dot.style.background = colour;
      return el("span", {}, dot, `${name} `, el("b", {}, short(at[1])), at[0] === step ? "" : ` (step ${at[0].toLocaleString("en")})`);
    });
    this.values.replaceChildren(el("span", { className: "step" }, `step ${step.toLocaleString("en")}`), ...rows);
    const left = this.x(step) < this.width / 2;
    Object.assign(this.values.style, left
      ? { left: `${this.x(step) + 10}px`, right: "auto" }
      : { right: `${this.width - this.x(step) + 10}px`, left: "auto" });
  }
}

/** The point of a curve that is nearest to a step. */
function nearest(points, step) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle;
    else high = middle;
  }
  return step - points[low][0] < points[high][0] - step ? points[low] : points[high];
}
