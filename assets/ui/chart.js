// A read-only chart. Points that carry a key can be clicked, walked through by arrow keys and, on request, brushed.
const root = element.querySelector(".chart");
const Plotly = window.Plotly;

const VARIABLES = {
  forget: "--razor-forget", retain: "--razor-retain", neighbour: "--razor-neighbour", original: "--razor-original",
  edited: "--razor-edited", ink: "--body-text-color", soft: "--body-text-color-subdued",
  line: "--border-color-primary", paper: "--block-background-fill",
};
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55",
  "#fee838"];
const RING = 8;  // px a ring is wider than the marker it surrounds

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const finding = make("p", "finding");
const field = make("div", "chart-field");
const plot = make("div", "chart-plot");
const bar = make("div", "chart-bar");
const count = make("span");
const clear = make("button", "", "Clear selection");
const live = make("div", "visually-hidden");
const empty = make("div", "empty-state");
plot.setAttribute("role", "img");
live.setAttribute("aria-live", "polite");
clear.type = "button";
field.append(plot);
bar.append(count, clear);
empty.append(make("strong", "", "Nothing to show yet"), make("p", "", root.dataset.empty || ""));
root.replaceChildren(finding, field, bar, live, empty);

// ---------------------------------------------------------------- the figure

function token(name) {
  return getComputedStyle(root).getPropertyValue(VARIABLES[name]).trim();
}

// The figure with every "token:name" replaced by that colour; always a copy, since Plotly writes into what it gets.
function coloured(part) {
  if (typeof part === "string") {
    const name = part.startsWith("token:") ? part.slice(6) : "";
    return Object.hasOwn(VARIABLES, name) ? token(name) : part;
  }
  if (Array.isArray(part)) return part.map(coloured);
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, coloured(value)]));
}

function isPlain(part) {
  return part !== null && typeof part === "object" && !Array.isArray(part);
}

function laidOver(under, over) {
  const both = { ...under };
  for (const [key, value] of Object.entries(over)) {
    both[key] = isPlain(value) && isPlain(under[key]) ? laidOver(under[key], value) : value;
  }
  return both;
}

function defaults(own, brush) {
  const font = { family: "IBM Plex Sans, system-ui, sans-serif", size: 13, color: token("ink") };
  const small = { ...font, size: 12, color: token("soft") };
  const axis = { zeroline: false, gridcolor: token("line"), linecolor: token("line"), tickfont: small, ticks: "",
    automargin: true, fixedrange: true, title: { font: { ...font, color: token("soft") }, standoff: 10 } };
  const names = ["xaxis", "yaxis", ...Object.keys(own).filter((key) => /^[xy]axis\d+$/.test(key))];
  return {
    ...Object.fromEntries(names.map((name) => [name, axis])),
    font, height: 320, margin: { l: 56, r: 24, t: 16, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", hoverdistance: 24, dragmode: brush ? "select" : false,
    colorway: ["edited", "forget", "retain", "neighbour", "original"].map(token),
    template: { data: { heatmap: [heatLook(small)] } }, bargap: 0.4, bargroupgap: 0.06,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font },
    hoverlabel: { bgcolor: token("paper"), bordercolor: token("soft"), font },
    newselection: { line: { color: token("ink"), width: 1.5, dash: "dot" } },
  };
}

function heatLook(tickfont) {
  const colorscale = CIVIDIS.map((shade, i) => [i / (CIVIDIS.length - 1), shade]);
  const hovertemplate = "%{x}, %{y}<br><b>%{z:.3~g}</b><extra></extra>";
  return { colorscale, hovertemplate, hoverongaps: false, colorbar: { thickness: 10, outlinewidth: 0, tickfont } };
}

// ---------------------------------------------------------------- points

function keyOf(custom) {
  const key = Array.isArray(custom) ? custom[0] : custom;
  return typeof key === "string" ? key : null;
}

// Every point with a key: where it is in the data, and its place on the axes.
function points(data) {
  return data.flatMap((trace, t) => (trace.customdata || []).flatMap((custom, i) => {
    if (trace.type === "heatmap") return heatCells(trace, t, custom, i);
    const key = keyOf(custom);
    const words = Array.isArray(trace.text) ? trace.text[i] : key;
    return key === null ? [] : [{ key, words, trace: t, number: i, x: trace.x?.[i] ?? i, y: trace.y?.[i] ?? i }];
  }));
}

function heatCells(trace, t, row, i) {
  return (Array.isArray(row) ? row : []).flatMap((custom, j) => {
    const key = keyOf(custom);
    const [x, y] = [trace.x?.[j] ?? j, trace.y?.[i] ?? i];
    return key === null ? [] : [{ key, words: key, trace: t, number: [i, j], x, y }];
  });
}

// In the order of x, then of y; names keep the order they come in.
function inOrder(list) {
  const rank = (axis) => {
    const seen = [...new Set(list.map((point) => point[axis]))];
    const numeric = seen.every((value) => typeof value === "number");
    return (point) => (numeric ? point[axis] : seen.indexOf(point[axis]));
  };
  const [x, y] = [rank("x"), rank("y")];
  return [...list].sort((a, b) => x(a) - x(b) || y(a) - y(b));
}

function size(data) {
  return data.reduce((sum, { x, y, z }) => sum + (z ? z.flat().filter((cell) => cell !== null).length
    : (y || x || []).length), 0);
}

// A ring around each of these points, at a bar's end or amid a cell; boxes hide where their points lie.
function rings(data, list, colour, width) {
  return data.flatMap((trace, t) => {
    const mine = list.filter((point) => point.trace === t);
    if (!mine.length || !["scatter", "heatmap", "bar", undefined].includes(trace.type)) return [];
    if (trace.type !== "heatmap") return [ring(trace, mine, "circle-open", colour, width)];
    // Black under white reads on every cell colour.
    const over = colour === token("ink") ? "#fff" : colour;
    return [ring(trace, mine, "square-open", "#0b0f18", width + 4), ring(trace, mine, "square-open", over, width)];
  });
}

function ring(trace, list, symbol, color, width) {
  const sizes = list.map(({ number }) => trace.marker?.size?.[number] ?? trace.marker?.size ?? 6);
  return {
    type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false, cliponaxis: false,
    xaxis: trace.xaxis || "x", yaxis: trace.yaxis || "y", x: list.map(({ x }) => x), y: list.map(({ y }) => y),
    marker: { symbol, color, opacity: 1, size: sizes.map((one) => one + RING), line: { width } },
  };
}

// ---------------------------------------------------------------- drawing

let order = [];  // the points the arrow keys walk through
let at = null;  // the key under the keyboard
let sent = [];  // keys of the selection Python knows
let unboxed = 0;  // counts the selections that took the drawn box away
let queued = false;
let listening = false;

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawNow(); });
}

function drawNow() {
  const value = props.value || {};
  const data = value.data || [];
  finding.textContent = value.finding || "";
  finding.hidden = !value.finding;
  empty.hidden = data.length > 0;
  field.hidden = !data.length;
  order = inOrder(points(data));
  sent = sent.filter((key) => order.some((point) => point.key === key));
  nameField(value);
  drawBar(value);
  root.dataset.points = String(size(data));
  if (data.length) {
    if (!plot.clientWidth) return;  // in a hidden tab; the resize observer calls again
    drawFigure(value, data);
  }
  root.dataset.ready = "true";
}

function nameField({ finding: words, alt, pick }) {
  plot.setAttribute("aria-label", alt || words || "Chart");
  if (!order.length) {
    for (const name of ["role", "tabindex", "aria-label"]) field.removeAttribute(name);
    return;
  }
  field.tabIndex = 0;
  field.setAttribute("role", "application");
  const more = pick === "brush" ? ", Space adds it to the selection or takes it out, Escape clears the selection" : "";
  field.setAttribute("aria-label", `${alt || words || "Chart"} Left and right move through ${order.length} points, `
    + `Enter picks one${more}.`);
}

function drawFigure(value, data) {
  const brush = value.pick === "brush";
  const figure = coloured(data);
  const marked = new Set((props.marked || {}).keys || []);
  const now = order.filter((point) => point.key === at && document.activeElement === field);
  const over = [...rings(figure, order.filter((point) => marked.has(point.key)), token("ink"), 2),
    ...rings(figure, now, token("edited"), 3)];
  const own = coloured(value.layout || {});
  const layout = laidOver(defaults(own, brush), own);
  // A drawn box outlives new colours and words, and ends when the points are others.
  layout.selectionrevision = JSON.stringify([unboxed, order.map(({ key }) => key)]);
  if (brush) lightSelected(figure);
  layout.width = plot.clientWidth;
  field.style.height = `${layout.height}px`;
  const config = { displayModeBar: false, scrollZoom: false, doubleClick: false };
  Plotly.react(plot, [...figure, ...over], layout, config).then(() => { if (now.length) hover(now[0]); });
  listen();
}

// Plotly dims every other point; with nothing selected, none.
function lightSelected(figure) {
  figure.forEach((trace, t) => {
    const mine = order.filter((point) => point.trace === t);
    if (mine.length) trace.selectedpoints = sent.length
      ? mine.filter(({ key }) => sent.includes(key)).map(({ number }) => number) : null;
  });
}

function hover({ trace, number, x, y }) {
  const place = Array.isArray(number) ? { xval: x, yval: y } : { pointNumber: number };
  Plotly.Fx.hover(plot, [{ curveNumber: trace, ...place }]);
}

// ---------------------------------------------------------------- picking

function listen() {
  if (listening) return;
  listening = true;
  plot.on("plotly_click", (event) => choose(event.points.map((point) => keyOf(point.customdata)).find(Boolean)));
  plot.on("plotly_selected", (event) => select(keysOf(event)));
  plot.on("plotly_deselect", () => select([]));
}

function keysOf(event) {
  return [...new Set((event?.points || []).map((point) => keyOf(point.customdata)).filter(Boolean))];
}

function choose(key) {
  if (key) trigger("point_pick", { key });
}

function select(keys) {
  if ((props.value || {}).pick !== "brush" || JSON.stringify(keys) === JSON.stringify(sent)) return;
  sent = keys;
  trigger("points_select", { keys });
  drawBar(props.value);
}

// A selection that no box belongs to: made by keys, or none.
function show(keys) {
  unboxed += 1;
  select(keys);
  draw();
}

function drawBar({ pick }) {
  bar.hidden = pick !== "brush" || !sent.length;
  count.textContent = `${sent.length} ${sent.length === 1 ? "point" : "points"} selected`;
}

clear.addEventListener("click", () => {
  show([]);
  field.focus({ preventScroll: true });
});

// ---------------------------------------------------------------- keys

field.addEventListener("keydown", (event) => {
  if (!order.length || event.ctrlKey || event.metaKey || event.altKey) return;
  const here = order.findIndex((point) => point.key === at);
  const last = order.length - 1;
  const to = { ArrowRight: Math.min(last, here + 1), ArrowLeft: Math.max(0, here - 1), Home: 0, End: last }[event.key];
  if (to !== undefined) step(order[to]);
  else if (event.key === "Enter" && here >= 0) choose(at);
  else if (event.key === " " && here >= 0) toggle(at);
  else if (event.key === "Escape" && sent.length) show([]);
  else return;
  event.preventDefault();
});

function step(point) {
  at = point.key;
  live.textContent = `${String(point.words).replace(/<[^>]*>/g, " ")}: ${point.x}, ${point.y}`;
  draw();
}

function toggle(key) {
  if ((props.value || {}).pick !== "brush") return;
  show(sent.includes(key) ? sent.filter((one) => one !== key) : [...sent, key]);
}

field.addEventListener("focus", () => {
  if (field.matches(":focus-visible") && at === null && order.length) step(order[0]);
});
field.addEventListener("blur", () => {
  if (at !== null) Plotly.Fx.unhover(plot);
  at = null;
  draw();
});

// ---------------------------------------------------------------- start

const modes = new MutationObserver(() => (root.isConnected ? draw() : modes.disconnect()));
modes.observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", draw);
watch("marked", draw);
new ResizeObserver(draw).observe(root);
draw();
