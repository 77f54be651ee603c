"use strict";
// Saves a chart as it is shown, as an SVG or PNG file.

const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin",
  "stroke-linecap", "font-family", "font-size", "font-weight", "paint-order"];
const SCALE = 2; // pixels of a PNG file per pixel of the page

// A copy with the styles as attributes, because a file has no style sheet.
function styled(node) {
  const copy = node.cloneNode(true);
  const parts = [node, ...node.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((part, i) => {
    const style = getComputedStyle(parts[i]);
    for (const name of STYLES) part.setAttribute(name, style.getPropertyValue(name));
    part.removeAttribute("class");
  });
  return copy;
}

// The chart with background, title and legend.
function picture(chart) {
  const drawn = chart.plot.querySelector("svg");
  if (!drawn) return null;
  const body = getComputedStyle(document.body);
  const ink = body.color;
  const { width } = chart;
  const [, , , height] = drawn.getAttribute("viewBox").split(" ").map(Number);
  const svg = make("svg", { "font-family": body.fontFamily, "font-size": 12 });
  const inner = make("g", { transform: "translate(0 34)" });
  inner.append(...styled(drawn).childNodes);
  svg.append(make("title", {}, chart.spec.title), make("desc", {}, chart.spec.alt));
  const ground = make("rect", { width, fill: getComputedStyle(chart.figure).backgroundColor });
  svg.append(ground, make("text", { x: 10, y: 22, fill: ink, "font-size": 15, "font-weight": 600 }, chart.spec.title), inner);
  let [x, y] = [10, height + 52];
  for (const each of chart.rows ? [] : chart.series) {
    const name = chart.page.names[each.m];
    const wide = 56 + name.length * 7;
    if (x > 10 && x + wide > width) [x, y] = [10, y + 22];
    const place = make("g", { transform: `translate(${x} ${y - 10})` });
    const shown = document.querySelector(`#legend [data-method="${each.m}"] .swatch`);
    place.append(...styled(shown).childNodes, make("text", { x: 37, y: 10, fill: ink }, name));
    svg.append(place);
    x += wide;
  }
  const tall = Math.ceil(chart.rows ? height + 40 : y + 14);
  ground.setAttribute("height", tall);
  for (const [name, value] of Object.entries({ xmlns: SVG, viewBox: `0 0 ${width} ${tall}`, width, height: tall })) svg.setAttribute(name, value);
  return { text: new XMLSerializer().serializeToString(svg), width, tall };
}

function save(found, name, kind) {
  if (!found) return;
  const source = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(found.text)}`;
  const keep = (address) => element("a", { href: address, download: `${name}.${kind.toLowerCase()}` }).click();
  if (kind === "SVG") return keep(source);
  const image = new Image();
  image.addEventListener("load", () => {
    const canvas = element("canvas", { width: SCALE * found.width, height: SCALE * found.tall });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    keep(canvas.toDataURL("image/png"));
  });
  image.src = source;
}
