"use strict";
// Parts of every chart: nodes, number formatting, scales, ticks, and the marks of methods.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 3"];

function make(tag, attributes = {}, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function element(tag, attributes = {}, text) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// --- Numbers ------------------------------------------------------------------------------------

function say(value, digits = 4) {
  if (value === null || value === undefined) return "no result";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) {
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 12 });
}

function scale(domain, range, log) {
  const f = log ? Math.log10 : (value) => value;
  const [low, high] = domain.map(f);
  const slope = (range[1] - range[0]) / (high - low || 1);
  const place = (value) => range[0] + (f(value) - low) * slope;
  place.inverse = (pixel) => {
    const value = low + (pixel - range[0]) / slope;
    return log ? 10 ** value : value;
  };
  return place;
}

function ticks([low, high], log, count, whole) {
  const found = [];
  if (log) {
    const decades = Math.log10(high / low);
    if (decades >= 1) {
      const every = Math.ceil(decades / count);
      const parts = decades * 3 <= count * 1.8 ? [1, 2, 5] : decades * 2 <= count * 1.8 ? [1, 3] : [1];
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
        if (e % every) continue;
        for (const part of parts) found.push(Number(`${part}e${e}`));
      }
      return found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    }
  }
  const raw = (high - low) / Math.max(count, 2);
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 2.5, 5, 10].find((part) => part * power >= raw) * power;
  if (whole) step = Math.max(1, Math.round(step));
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12) + 1e-12; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
    if (found.length > 60) break;
  }
  return found;
}

function symbol(shape, x, y, r) {
  const points = (list) => "M" + list.map(([a, b]) => `${x + a * r} ${y + b * r}`).join("L") + "Z";
  switch (shape) {
    case 1: return points([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
    case 2: return points([[0, -1.2], [1.1, 0.85], [-1.1, 0.85]]);
    case 3: return points([[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]);
    case 4: return points([[0, 1.2], [1.1, -0.85], [-1.1, -0.85]]);
    case 5: return points([[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4],
      [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]]);
    default: return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

const cross = (x, y, r) => `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`;

function arrow(x, y, [dx, dy], r) {
  const corner = (along, aside) => `${x + r * (dx * along - dy * aside)} ${y + r * (dy * along + dx * aside)}`;
  return `M${corner(1, 0)}L${corner(-0.8, 1)}L${corner(-0.8, -1)}Z`;
}

function swatch(mark) {
  const node = make("svg", { class: `swatch c${mark.colour}`, viewBox: "0 0 30 12", "aria-hidden": "true" });
  node.append(
    make("path", { class: "line", d: "M1 6H29", "stroke-dasharray": DASHES[mark.dash] }),
    make("path", { class: "dot", d: symbol(mark.shape, 15, 6, 4) }),
  );
  return node;
}

// The value of a line at x, or null outside it and where it is infinite.
function between(xs, ys, x) {
  if (!xs.length || x < xs[0] || x > xs[xs.length - 1] * (1 + 1e-9)) return null;
  const i = Math.max(1, xs.findIndex((value) => value >= x));
  if (xs.length === 1 || xs[i] === xs[i - 1]) return ys[Math.min(i, ys.length - 1)];
  if (ys[i] === null || ys[i - 1] === null) return x === xs[i - 1] ? ys[i - 1] : ys[i];
  return ys[i - 1] + ((ys[i] - ys[i - 1]) * (x - xs[i - 1])) / (xs[i] - xs[i - 1]);
}
