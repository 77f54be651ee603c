"use strict";
// Draws one chart of the report as SVG. Python decides the content (see charts.py); this script adds
// layout, values on hover, touch and keyboard, and zoom.

const NEAR = 28; // maximum distance in pixels between pointer and mark
const KEYS = "Arrow keys read values, plus and minus zoom, 0 shows everything.";

class Chart {
  constructor(spec, figure, page) {
    Object.assign(this, { spec, figure, page, window: null, at: null, full: false, log: { y: spec.y.log } });
    this.plot = figure.querySelector(".plot");
    this.reading = figure.querySelector(".reading");
    this.plot.setAttribute("aria-label", `${spec.alt} ${KEYS}`);
    if (!spec.empty) this.tools();
    this.listen();
    new ResizeObserver(() => this.width !== this.plot.clientWidth && this.draw()).observe(this.plot);
    this.draw();
  }

  get view() { return this.spec.views[this.page.axis] || this.spec.views.fixed || Object.values(this.spec.views)[0]; }
  get rows() { return this.spec.y.rows; }
  get logX() { return this.log.x ?? this.view.x.log; }
  get range() { return this.spec.y.range || this.view.x.range; }
  get blank() { return this.spec.empty || (this.series.length ? "" : "All methods of this chart are hidden."); }
  get series() { return this.view.series.filter((each) => !this.page.hidden.has(each.m)); }

  // Buttons above the chart, all usable with the keyboard.
  tools() {
    const bar = this.figure.querySelector(".tools");
    const add = (label, title, act) => {
      const button = element("button", { type: "button", title, "aria-label": `${title}: ${this.spec.title}` }, label);
      button.addEventListener("click", () => { act(button); this.draw(); });
      bar.append(button);
      return button;
    };
    const toggle = (axis) => {
      const on = () => (axis === "x" ? this.logX : this.log.y);
      const button = add(`log ${axis}`, `Logarithmic ${axis} axis`, () => {
        this.log[axis] = !on();
        this.window = null;
        button.setAttribute("aria-pressed", String(on()));
      });
      button.setAttribute("aria-pressed", String(on()));
    };
    toggle("x");
    if (!this.rows) toggle("y");
    if (this.range) {
      const button = add("full range", "Show values outside the chart too", () => {
        this.full = !this.full;
        this.window = null;
        button.setAttribute("aria-pressed", String(this.full));
      });
      button.setAttribute("aria-pressed", "false");
    }
    add("+", "Zoom in", () => this.zoom(0.5));
    add("−", "Zoom out", () => this.zoom(2));
    add("all", "Undo zoom", () => { this.window = null; });
    for (const kind of ["SVG", "PNG"]) {
      const button = element("button", { type: "button", "aria-label": `Save as ${kind}: ${this.spec.title}` }, kind);
      button.addEventListener("click", () => save(picture(this), this.spec.id, kind));
      this.figure.querySelector(".save").append(button);
    }
  }

  // --- Coordinates

  extent(axis, view) {
    const found = [];
    const inside = (x) => !this.window || (x >= this.window.x[0] && x <= this.window.x[1]);
    for (const each of this.series) {
      const take = (xs, ys) => xs.forEach((x, i) => {
        const value = axis === "x" ? x : ys[i];
        if (value !== null && (axis === "x" || inside(x))) found.push(value);
      });
      if (each.line) take(...each.line);
      if (each.band) { take(each.band[0], each.band[1]); take(each.band[0], each.band[2]); }
      for (const run of each.thin || []) take(run.x, run.y);
      for (const dot of each.dots || []) take([dot.x], [dot.y]);
      if (axis === "x") found.push(...(each.bars || []).flatMap((bar) => bar.slice(0, 2)), ...(each.edges || []));
    }
    if (axis === "y") for (const line of this.spec.lines || []) found.push(line.at);
    return found.filter((value) => value !== null);
  }

  domain(axis) {
    if (this.window && this.window[axis]) return this.window[axis];
    const log = axis === "x" ? this.logX : this.log.y;
    let values = this.extent(axis);
    const range = this.focus(axis);
    if (range) values = values.map((value) => Math.max(range[0], Math.min(range[1], value)));
    if (log) values = values.filter((value) => value > 0);
    let low = values.length ? Math.min(...values) : log ? 0.1 : 0;
    let high = values.length ? Math.max(...values) : 1;
    if (axis === "x" && this.view.x.zero && !log) low = Math.min(0, low);
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    const curve = axis === "x" && this.spec.kind === "curve";
    const margin = curve ? 0 : 0.05;
    if (log) {
      const factor = (high / low) ** margin;
      return [low / factor, high * factor];
    }
    const rest = (high - low) * margin;
    return [low === 0 ? 0 : low - rest, high + rest];
  }

  // The part of an axis that matters, unless it has no visible result.
  focus(axis) {
    const range = axis === "y" ? this.spec.y.range : this.view.x.range;
    if (!range || this.full) return null;
    const within = (value) => value !== null && value !== undefined && value >= range[0] && value <= range[1];
    const seen = this.series.some((each) => (each.dots || []).some((dot) => within(dot[axis])) || (each.line && within(each.line[1].at(-1))));
    return seen ? range : null;
  }

  // --- Drawing

  draw() {
    if (this.blank) {
      this.plot.replaceChildren(element("p", { class: "empty" }, this.blank));
      return this.unread();
    }
    this.width = this.plot.clientWidth || 640;
    const narrow = this.width < 480;
    const gutter = this.spec.gutter ? (narrow ? 62 : 84) : 0;
    const side = this.spec.kind === "rows";
    const names = side ? Math.min(this.width * 0.36, Math.max(...this.rows.map((row) => row.length)) * 7.4 + 18) : 0;
    const height = side ? 62 + 34 * this.rows.length : Math.max(250, Math.min(400, this.width * 0.62));
    const above = this.spec.gutter && !side ? 30 : 0;
    this.box = {
      left: side ? names : 58, right: this.width - 14 - (side ? gutter : 0), top: 10 + above, bottom: height - 46,
    };
    this.log.y = this.log.y && !side;
    const x = (this.x = scale(this.domain("x"), [this.box.left + (side ? 8 : 0), this.box.right - (side ? 8 : 0)], this.logX));
    const y = (this.y = side
      ? (row) => this.box.top + 17 + 34 * row
      : scale(this.domain("y"), [this.box.bottom, this.box.top], this.log.y));
    const svg = make("svg", { viewBox: `0 0 ${this.width} ${height}`, "aria-hidden": "true", focusable: "false" });
    const clip = `clip-${this.spec.id}`;
    const area = make("clipPath", { id: clip });
    const { left, right, top, bottom } = this.box;
    area.append(make("rect", { x: left - 1, y: top - 7, width: right - left + 8, height: bottom - top + 14 }));
    const layer = make("g", { "clip-path": `url(#${clip})` });
    svg.append(area, this.axes(narrow, names), layer);
    this.dots = [];
    const order = ["bands", "thins", "edges", "lines", "bars", "marks"];
    const drawn = Object.fromEntries(order.map((name) => [name, make("g")]));
    for (const each of this.series) this.drawSeries(each, x, y, drawn);
    layer.append(...order.slice(0, 5).map((name) => drawn[name]));
    this.cursor = make("g", { class: "cursor" });
    svg.append(drawn.marks, this.labels(), this.cursor);
    this.plot.replaceChildren(svg);
    return this.unread();
  }

  axes(narrow, names) {
    const { left, right, top, bottom } = this.box;
    const group = make("g", { class: "axes" });
    const count = Math.max(3, Math.floor((right - left) / (narrow ? 70 : 95)));
    for (const value of ticks(this.domain("x"), this.logX, count, this.view.x.whole)) {
      const at = this.x(value);
      if (at < left - 1 || at > right + 1) continue;
      group.append(
        make("path", { class: "grid", d: `M${at} ${top}V${bottom}` }),
        make("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, say(value)),
      );
    }
    const label = this.view.x.label;
    group.append(make("text", { class: "label", x: (left + right) / 2, y: bottom + 37, "text-anchor": "middle" }, label));
    if (this.rows) this.rowNames(group, names);
    else {
      for (const value of ticks(this.domain("y"), this.log.y, Math.max(3, Math.floor((bottom - top) / 45)))) {
        const at = this.y(value);
        if (at < top - 1 || at > bottom + 1) continue;
        group.append(
          make("path", { class: "grid", d: `M${left} ${at}H${right}` }),
          make("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, say(value, 3)),
        );
      }
      for (const line of this.spec.lines || []) {
        const at = this.y(line.at);
        if (at >= top && at <= bottom) group.append(make("path", { class: "target", d: `M${left} ${at}H${right}` }));
      }
    }
    if (this.spec.gutter) this.drawGutter(group);
    group.append(make("path", { class: "axis", d: `M${left} ${bottom}H${right}` }));
    return group;
  }

  // Labels of lines are on top of everything else, on the side of the worse values, where runs begin.
  labels() {
    const { left, top, bottom } = this.box;
    const group = make("g", { class: "axes" });
    for (const line of this.spec.lines || []) {
      const at = this.y(line.at) + (this.spec.y.goal === "max" ? 16 : -7);
      if (at >= top && at <= bottom) group.append(make("text", { class: "on", x: left + 6, y: at }, line.label));
    }
    return group;
  }

  rowNames(group, names) {
    const { left, right, bottom } = this.box;
    this.rows.forEach((row, i) => {
      const at = this.y(i);
      const room = Math.floor((names - 16) / 7.4);
      const name = row.length > room ? `${row.slice(0, Math.max(1, room - 1))}…` : row;
      const text = make("text", { class: "name", x: left - 10, y: at + 4, "text-anchor": "end" }, name);
      if (name !== row) text.append(make("title", {}, row));
      group.append(make("path", { class: "grid", d: `M${left} ${at}H${right}` }), text);
    });
    group.append(make("path", { class: "axis", d: `M${left} ${this.box.top}V${bottom}` }));
  }

  // A separate area for runs without a number: right of rows, above or below other charts.
  drawGutter(group) {
    const { left, right, top, bottom } = this.box;
    if (this.rows) {
      this.apart = (right + this.width) / 2 + 2;
      group.append(
        make("rect", { class: "apart", x: right + 8, y: top, width: this.width - right - 10, height: bottom - top, rx: 6 }),
        make("text", { class: "on", x: this.apart, y: bottom + 17, "text-anchor": "middle" }, this.spec.gutter),
      );
    } else {
      this.apart = top - 19;
      group.append(
        make("rect", { class: "apart", x: left, y: top - 30, width: right - left, height: 22, rx: 6 }),
        make("text", { class: "on", x: right - 6, y: top - 15, "text-anchor": "end" }, this.spec.gutter),
      );
    }
  }

  // Zero is at the edge of a logarithmic axis; infinity at the edge of any.
  pixel(place, value, missing) {
    if (value === null) return missing;
    const at = place(value);
    return Number.isFinite(at) ? Math.max(-1e5, Math.min(1e5, at)) : at === -Infinity || Number.isNaN(at) ? this.box.left : missing;
  }

  path(xs, ys, x, y) {
    const low = this.rows ? 0 : this.box.bottom;
    const bad = this.spec.y.goal === "max" ? this.box.bottom + 40 : this.box.top - 40;
    const parts = [];
    xs.forEach((value, i) => {
      const at = x(value);
      if (!Number.isFinite(at)) return; // zero on a logarithmic axis
      const height = ys[i] === null ? bad : y(ys[i]);
      parts.push(`${at.toFixed(2)} ${(Number.isFinite(height) ? Math.max(-2e4, Math.min(2e4, height)) : low).toFixed(2)}`);
    });
    return parts;
  }

  // A triangle where a line leaves the chart on the bad side.
  leaving(points, colour, layer) {
    if (!this.focus("y") || this.window) return;
    const up = this.spec.y.goal === "min";
    const edge = up ? this.box.top : this.box.bottom;
    const out = (height) => (up ? height < edge - 1 : height > edge + 1);
    const places = points.map((point) => point.split(" ").map(Number));
    places.forEach(([px, py], i) => {
      if (!out(py) || (i > 0 && out(places[i - 1][1])) || (i === 0 && places.some((place) => !out(place[1])))) return;
      const [bx, by] = i > 0 ? places[i - 1] : places.at(-1);
      const at = i > 0 ? bx + ((px - bx) * (edge - by)) / (py - by) : bx;
      layer.append(make("path", { class: `leaving ${colour}`, d: symbol(up ? 2 : 4, at, edge + (up ? 4 : -4), 4.5) }));
    });
  }

  drawSeries(each, x, y, drawn) {
    const mark = this.page.marks[each.m];
    const colour = `c${mark.colour}`;
    if (each.band) {
      const there = this.path(each.band[0], each.band[1], x, y);
      const back = this.path(each.band[0], each.band[2], x, y).reverse();
      if (there.length) drawn.bands.append(make("path", { class: `band ${colour}`, d: `M${[...there, ...back].join("L")}Z` }));
    }
    for (const run of each.thin || []) {
      const points = this.path(run.x, run.y, x, y);
      drawn.thins.append(make("path", { class: `thin ${colour}`, d: `M${points.join("L")}` }));
      this.leaving(points, colour, drawn.lines);
      if (run.lost) {
        const [px, py] = (points.at(-1) || "").split(" ").map(Number);
        const height = Math.max(this.box.top + 4, Math.min(this.box.bottom - 4, py));
        if (Number.isFinite(px)) drawn.lines.append(make("path", { class: `lost ${colour}`, d: cross(px, height, 5) }));
      }
    }
    if (each.line && each.line[0].length) {
      const points = this.path(...each.line, x, y);
      const kind = this.spec.kind === "curve" ? "line" : "thin";
      drawn.lines.append(make("path", { class: `${kind} ${colour}`, d: `M${points.join("L")}`, "stroke-dasharray": DASHES[mark.dash] }));
      if (kind === "line") {
        this.drawSymbols(points, mark, drawn.lines);
        this.leaving(points, colour, drawn.lines);
      }
    }
    for (const value of each.edges || []) {
      const at = x(value);
      const way = value === each.edges[0] ? 5 : -5;
      const foot = this.box.bottom - 2 - 4 * (each.m % 6);
      drawn.edges.append(make("path", { class: `edge ${colour}`, d: `M${at + way} ${foot - 9}H${at}V${foot}H${at + way}` }));
    }
    for (const [low, high, row] of each.bars || []) {
      const from = low === null ? this.box.left : x(low);
      const to = high === null ? this.box.right : x(high);
      const at = y(row) - 5;
      const open = (value, px) => (value === null ? "" : `M${px} ${at - 6}V${at + 6}`);
      drawn.bars.append(make("path", { class: `bar ${colour}`, d: `M${from} ${at}H${to}${open(low, from)}${open(high, to)}` }));
    }
    for (const dot of each.dots || []) this.drawDot(dot, each, mark, x, y, drawn.marks);
  }

  drawSymbols(points, mark, layer) {
    let last = -1e9;
    points.forEach((point, i) => {
      const [px, py] = point.split(" ").map(Number);
      if (px - last < 70 && i !== points.length - 1) return;
      last = px;
      layer.append(make("path", { class: `dot c${mark.colour}`, d: symbol(mark.shape, px, py, 3.6) }));
    });
  }

  drawDot(dot, each, mark, x, y, layer) {
    const lost = dot.x === null || dot.y === null;
    const { left, right, top, bottom } = this.box;
    const px = dot.x === null ? this.apart : x(dot.x);
    const over = this.rows ? (dot.kind === "centre" ? -5 : lost ? 0 : 7) : 0;
    const py = (dot.y === null ? this.apart : y(dot.y)) + over;
    const ends = [Math.max(left, Math.min(right, px)), Math.max(top, Math.min(bottom, py))];
    const beyond = !lost && (Math.abs(px - ends[0]) > 1 || Math.abs(py - ends[1]) > 6);
    if (beyond && (this.window || !(this.focus("x") || this.focus("y")))) return;
    const taken = this.dots.filter((other) => lost && Math.abs(other.px - px) < 30 && other.py === py).length;
    const shift = lost && this.rows ? (taken % 2 ? 1 : -1) * Math.ceil(taken / 2) * 9 : 0;
    const size = dot.kind === "centre" ? 6.5 : 4;
    const kind = lost ? "lost" : dot.kind === "centre" ? "dot centre" : "dot seed";
    if (beyond) return this.drawBeyond(dot, each, px, py, ends, layer);
    const d = lost ? cross(px + shift, py, 4.5) : symbol(mark.shape, px, py, size);
    layer.append(make("path", { class: `${kind} c${mark.colour}`, d, "data-x": dot.x ?? "", "data-y": dot.y ?? "" }));
    this.dots.push({ ...dot, px: px + shift, py, m: each.m });
  }

  // A triangle at the edge for a value outside the chart.
  drawBeyond(dot, each, px, py, [ex, ey], layer) {
    const colour = `c${this.page.marks[each.m].colour}`;
    const way = py < ey - 6 ? [0, -1] : py > ey + 6 ? [0, 1] : px < ex ? [-1, 0] : [1, 0];
    layer.append(make("path", { class: `leaving ${colour}`, d: arrow(ex, ey, way, 5), "data-x": dot.x, "data-y": dot.y }));
    this.dots.push({ ...dot, px: ex, py: ey, m: each.m });
  }

  // --- Reading

  listen() {
    const { plot } = this;
    const place = (event) => {
      const box = plot.getBoundingClientRect();
      return [((event.clientX - box.left) * this.width) / box.width, ((event.clientY - box.top) * this.width) / box.width];
    };
    let from = null;
    plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0 && !this.blank) from = place(event);
      else this.read(...place(event));
    });
    plot.addEventListener("pointermove", (event) => {
      const at = place(event);
      if (from) this.rubber(from, at);
      else this.read(...at);
    });
    window.addEventListener("pointerup", (event) => {
      if (from) this.enlarge(from, place(event));
      from = null;
    });
    plot.addEventListener("pointerleave", (event) => { if (!from && event.pointerType === "mouse") this.unread(); });
    plot.addEventListener("dblclick", () => { this.window = null; this.draw(); });
    plot.addEventListener("blur", () => this.unread());
    plot.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (this.blank) return;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };
    const { left, right } = this.box;
    if (event.key in steps && this.spec.kind === "curve") {
      const step = (steps[event.key] * (right - left)) / (event.shiftKey ? 8 : 40);
      this.at = Math.max(left, Math.min(right, (this.at ?? (steps[event.key] > 0 ? left - step : right - step)) + step));
      this.read(this.at, null);
    } else if (event.key in steps) {
      const dots = [...this.dots].sort((a, b) => a.py - b.py || a.px - b.px);
      if (!dots.length) return;
      this.at = ((this.at ?? (steps[event.key] > 0 ? -1 : 0)) + steps[event.key] + dots.length) % dots.length;
      this.tell(dots[this.at]);
    } else if (event.key === "Home" || event.key === "End") {
      this.at = event.key === "Home" ? left : right;
      if (this.spec.kind === "curve") this.read(this.at, null);
      else return;
    } else if (event.key === "+" || event.key === "=") { this.zoom(0.5); this.draw(); }
    else if (event.key === "-") { this.zoom(2); this.draw(); }
    else if (event.key === "0") { this.window = null; this.draw(); }
    else if (event.key === "Escape") this.unread();
    else return;
    event.preventDefault();
  }

  read(px, py) {
    if (this.blank) return undefined;
    const { left, right, top, bottom } = this.box;
    if (this.spec.kind === "curve") {
      if (px < left - 10 || px > right + 10 || (py !== null && (py < top - 10 || py > bottom + 30))) return this.unread();
      return this.across(this.x.inverse(Math.max(left, Math.min(right, px))));
    }
    const near = this.dots
      .map((dot) => [Math.hypot(dot.px - px, dot.py - py), dot])
      .filter(([distance]) => distance < NEAR)
      .sort((a, b) => a[0] - b[0])[0];
    return near ? this.tell(near[1]) : this.unread();
  }

  // All lines at one cost, best first.
  across(value) {
    const at = this.view.x.whole ? Math.round(value) : value;
    const found = [];
    this.cursor.replaceChildren(make("path", { d: `M${this.x(at)} ${this.box.top}V${this.box.bottom}` }));
    for (const each of this.series) {
      const mid = between(...each.line, at);
      if (mid === null) continue;
      found.push({ m: each.m, mid, low: between(each.band[0], each.band[1], at), high: between(each.band[0], each.band[2], at) });
      const py = this.pixel(this.y, mid, null);
      if (py !== null) this.cursor.append(make("circle", { class: `c${this.page.marks[each.m].colour}`, cx: this.x(at), cy: py, r: 5 }));
    }
    found.sort((a, b) => (a.mid - b.mid) * (this.spec.y.goal === "max" ? -1 : 1));
    const rows = found.map((each) => [each.m, `${say(each.mid)} [${each.low === null ? "∞" : say(each.low)}, ${each.high === null ? "∞" : say(each.high)}]`]);
    this.show(`${say(at)} ${this.view.x.whole ? "trials" : this.view.x.label}`, rows, this.x(at));
  }

  tell(dot) {
    this.cursor.replaceChildren(make("circle", { class: `c${this.page.marks[dot.m].colour}`, cx: dot.px, cy: dot.py, r: 10 }));
    this.show(null, [[dot.m, dot.text]], dot.px, dot.py);
  }

  show(title, rows, px, py = 0) {
    this.reading.replaceChildren();
    if (title !== null) this.reading.append(element("strong", {}, title));
    for (const [m, text] of rows) {
      const line = element("div");
      line.append(swatch(this.page.marks[m]), element("b", {}, this.page.names[m]), element("span", {}, text));
      this.reading.append(line);
    }
    this.reading.hidden = !rows.length;
    // Show values of lines below the chart, where they hide nothing, and values of a mark next to it.
    const shrink = this.plot.clientWidth / this.width;
    const { offsetWidth: wide, offsetHeight: tall } = this.reading;
    const free = this.plot.clientWidth - wide;
    const x = px * shrink;
    const left = title !== null ? x - wide / 2 : x + 14 <= free ? x + 14 : x - wide - 14;
    const top = title !== null ? this.plot.clientHeight - 8 : Math.max(0, py * shrink - tall - 12);
    this.reading.style.left = `${this.plot.offsetLeft + Math.max(0, Math.min(free, left))}px`;
    this.reading.style.top = `${this.plot.offsetTop + top}px`;
  }

  unread() {
    this.cursor?.replaceChildren();
    this.reading.hidden = true;
    this.at = null;
  }

  // --- Zooming

  rubber(from, to) {
    this.reading.hidden = true;
    const { left, right, top, bottom } = this.box;
    const flat = this.rows || Math.abs(to[1] - from[1]) < 12;
    const xs = [from[0], to[0]].map((v) => Math.max(left, Math.min(right, v))).sort((a, b) => a - b);
    const ys = flat ? [top, bottom] : [from[1], to[1]].map((v) => Math.max(top, Math.min(bottom, v))).sort((a, b) => a - b);
    this.cursor.replaceChildren(make("rect", { x: xs[0], y: ys[0], width: xs[1] - xs[0], height: ys[1] - ys[0] }));
    return { xs, ys: flat ? null : ys };
  }

  enlarge(from, to) {
    if (Math.abs(to[0] - from[0]) < 8) return this.cursor.replaceChildren();
    const { xs, ys } = this.rubber(from, to);
    this.window = { x: xs.map(this.x.inverse), y: ys && [ys[1], ys[0]].map(this.y.inverse) };
    return this.draw();
  }

  zoom(factor) {
    const f = this.logX ? Math.log10 : (value) => value;
    const back = this.logX ? (value) => 10 ** value : (value) => value;
    const [low, high] = this.domain("x").map(f);
    const middle = this.spec.kind === "curve" && this.at !== null ? f(this.x.inverse(this.at)) : (low + high) / 2;
    const kept = this.window;
    this.window = null;
    const [least, most] = this.domain("x").map(f);
    const half = ((high - low) * factor) / 2;
    const ends = [Math.max(least, middle - half), Math.min(most, middle + half)];
    const whole = ends[0] <= least && ends[1] >= most;
    this.window = whole ? null : { x: ends.map(back), y: kept && kept.y };
  }
}
