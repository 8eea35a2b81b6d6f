// Five small experiments that a reader moves with sliders: no kernel, no server, no library.
//
// A page has <div class="phaselab-widget" data-widget="NAME"></div>; NAME.js calls Widgets.define. `compute` is a pure
// function of the settings, so a test can hold its numbers against those of Python (tests/browser/test_widgets.py).
"use strict";

const Widgets = (() => {
  const known = {};

  // --- numbers

  // Uniform numbers from a seed (mulberry32): the same draw on each machine.
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  // n standard normal numbers (Box and Muller).
  function normals(draw, n) {
    return Array.from({length: n}, () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw()));
  }

  // n numbers of variance 1, of which neighbours have the correlation rho.
  function autocorrelated(draw, n, rho) {
    const out = normals(draw, n);
    for (let t = 1; t < n; t++) out[t] = rho * out[t - 1] + Math.sqrt(1 - rho * rho) * out[t];
    return out;
  }

  const sum = values => values.reduce((a, b) => a + b, 0);
  const mean = values => sum(values) / values.length;
  const dot = (a, b) => { let s = 0; for (let i = 0; i < a.length; i++) s += a[i] * b[i]; return s; };
  const range = n => Array.from({length: n}, (_, i) => i);

  // Pearson correlation; 0 where one of the two is constant.
  function pearson(a, b) {
    const x = a.map(v => v - mean(a)), y = b.map(v => v - mean(b));
    const scale = Math.sqrt(dot(x, x) * dot(y, y));
    return scale > 0 ? dot(x, y) / scale : 0;
  }

  // Solution of a positive definite system (p, p) x = (p,), by elimination.
  function solve(matrix, right) {
    const A = matrix.map(row => row.slice()), b = right.slice(), p = b.length;
    for (let i = 0; i < p; i++) {
      for (let r = i + 1; r < p; r++) {
        const factor = A[r][i] / A[i][i];
        for (let c = i; c < p; c++) A[r][c] -= factor * A[i][c];
        b[r] -= factor * b[i];
      }
    }
    for (let i = p - 1; i >= 0; i--) {
      for (let c = i + 1; c < p; c++) b[i] -= A[i][c] * b[c];
      b[i] /= A[i][i];
    }
    return b;
  }

  // Ridge weights (X'X + alpha I)^-1 X'y; X: rows.
  function ridge(X, y, alpha) {
    const columns = range(X[0].length).map(j => X.map(row => row[j]));
    const gram = columns.map((a, i) => columns.map((b, j) => dot(a, b) + (i === j ? alpha : 0)));
    return solve(gram, columns.map(column => dot(column, y)));
  }

  // A number with so many digits, and no minus sign before a zero.
  const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");

  const predict = (X, weights) => X.map(row => dot(row, weights));

  // --- drawing

  function element(name, attributes = {}, ...children) {
    const svg = ["svg", "g", "path", "circle", "rect", "line", "text"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const HEIGHT = 210, LEFT = 46, RIGHT = 16, TOP = 10, BOTTOM = 42;

  // One panel: {title, x: {label, range, ticks}, y: {...}, marks: [{kind, x, y, colour, name}]}; ticks: [[place, text]].
  function panel(of, width) {
    const across = v => LEFT + (v - of.x.range[0]) / (of.x.range[1] - of.x.range[0]) * (width - LEFT - RIGHT);
    const up = v => HEIGHT - BOTTOM - (v - of.y.range[0]) / (of.y.range[1] - of.y.range[0]) * (HEIGHT - TOP - BOTTOM);
    const group = element("g");
    const write = (x, y, text, anchor) => group.append(element("text", {x, y, "text-anchor": anchor}, text));
    group.append(element("path", {
      class: "frame", d: `M${LEFT},${TOP}V${HEIGHT - BOTTOM}H${width - RIGHT}`,
    }));
    for (const [at, text] of of.x.ticks) {
      write(across(at), HEIGHT - BOTTOM + 15, text, across(at) > width - 2 * RIGHT ? "end" : "middle");
    }
    for (const [at, text] of of.y.ticks) write(LEFT - 6, up(at) + 4, text, "end");
    write((LEFT + width - RIGHT) / 2, HEIGHT - 8, of.x.label, "middle");
    for (const mark of of.marks) {
      const points = mark.x.map((x, i) => [across(x), up(Math.min(Math.max(mark.y[i], of.y.range[0]), of.y.range[1]))]);
      const shape = {
        line: () => [element("path", {d: "M" + points.map(p => p.map(v => v.toFixed(1)).join(",")).join("L")})],
        dots: () => points.map(([cx, cy]) => element("circle", {cx, cy, r: 3})),
        bars: () => points.map(([x, y]) => element("rect", {
          x: x - mark.width / 2, y: Math.min(y, up(0)), width: mark.width, height: Math.max(Math.abs(up(0) - y), 1),
        })),
      }[mark.kind];
      group.append(element("g", {class: `${mark.kind} colour-${mark.colour}`}, ...shape()));
    }
    return group;
  }

  function draw(widget) {
    const {holder, key, panels, told} = widget;
    const found = widget.of.compute(widget.settings), sentence = widget.of.tell(found, widget.settings);
    const drawn = widget.of.panels(found, widget.settings);
    holder.replaceChildren(...drawn.flatMap(of => {
      const width = Math.max(Math.min(holder.clientWidth || 640, 720), 240);
      const size = {viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT};
      const picture = element("svg", {...size, role: "img", "aria-label": `${of.title}. ${of.alt}`}, panel(of, width));
      return [element("p", {class: "title"}, of.title), picture];
    }));
    const named = drawn.flatMap(of => of.marks).filter(mark => mark.name);
    const once = named.filter((mark, i) => named.findIndex(other => other.name === mark.name) === i);
    key.replaceChildren(...once.map(mark => element("li", {class: `colour-${mark.colour} ${mark.kind}`}, mark.name)));
    const rows = Object.entries(widget.of.numbers(found, widget.settings));
    panels.replaceChildren(...rows.map(([name, value]) =>
      element("tr", {}, element("th", {scope: "row"}, name), element("td", {}, value))));
    told.textContent = sentence;
  }

  function control(widget, of, id) {
    const output = element("output", {for: id});
    const input = of.options
      ? element("select", {id}, ...of.options.map(option => element("option", {value: option}, option)))
      : element("input", {id, type: "range", min: of.min, max: of.max, step: of.step});
    const read = () => {
      widget.settings[of.name] = of.options ? input.value : Number(input.value);
      const text = of.options ? "" : (of.show || String)(widget.settings[of.name]);
      output.textContent = text;
      if (!of.options) input.setAttribute("aria-valuetext", text);
    };
    const reset = () => { input.value = of.value; read(); };
    input.addEventListener("input", () => { read(); draw(widget); });
    reset();
    return {reset, row: element("div", {class: "control"}, element("label", {for: id}, of.label), input, output)};
  }

  function start(place) {
    const of = known[place.dataset.widget];
    const widget = {
      of, settings: {}, holder: element("div", {class: "panels"}), key: element("ul", {class: "key"}),
      panels: element("tbody"), told: element("p", {class: "told", "aria-live": "polite"}),
    };
    const controls = of.controls.map(one => control(widget, one, `${place.dataset.widget}-${one.name}`));
    const again = element("button", {type: "button"}, "Back to the start");
    again.addEventListener("click", () => { controls.forEach(one => one.reset()); draw(widget); });
    const table = element("table", {}, element("caption", {}, "What is drawn, as numbers"), widget.panels);
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", of.title);
    place.replaceChildren(...controls.map(one => one.row), again, widget.holder, widget.key, widget.told, table);
    place.widget = widget;
    draw(widget);
    let width = widget.holder.clientWidth;
    new ResizeObserver(() => {
      if (widget.holder.clientWidth !== width) { width = widget.holder.clientWidth; draw(widget); }
    }).observe(widget.holder);
  }

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".phaselab-widget").forEach(start));

  const define = (name, of) => { known[name] = of; };
  return {define, known, uniform, normals, autocorrelated, sum, mean, dot, range, pearson, ridge, predict, fixed};
})();
