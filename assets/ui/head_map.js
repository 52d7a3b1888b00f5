// The map. Cells are drawn by Plotly; marks, headers, hover and clicks are ours, on the same pixel grid.
const root = element.querySelector(".head-map");
const Plotly = window.Plotly;

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55",
  "#fee838"];
const PUOR = ["#2d004b", "#542788", "#8073ac", "#b2abd2", "#d8daeb", "#f7f7f7", "#fee0b6", "#fdb863", "#e08214",
  "#b35806", "#7f3b08"];
const SCORES = {
  phi: { title: "Phi", log: true, ramp: CIVIDIS, words: "phi: pressure \u00d7 separation" },
  pressure: { title: "Pressure", log: true, ramp: CIVIDIS, words: "pressure: forget gradient over weight size" },
  separation: { title: "Separation", log: false, ramp: CIVIDIS,
    words: "separation: 0 gradients agree, 1 unrelated, 2 opposed" },
  ratio: { title: "Forget / retain", log: true, ramp: PUOR, words: "forget gradient over retain gradient" },
};
const STATES = {
  edited: "edited",
  picked: "picked by you",
  banned: "banned",
};
const MIN_CELL = 20;
const ROOMY_CELL = 48;  // towers stand side by side while their cells can be this wide
const MAX_CELL = 72;
const REPLY_LIMIT = 15000;  // ms after which an unanswered click is no longer drawn

// ---------------------------------------------------------------- elements

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(digits - 1).replace("e+", "e").replace("-", "\u2212");
  return String(Number(value.toPrecision(digits))).replace("-", "\u2212");
}

// ---------------------------------------------------------------- what is picked

let seq = Number(props.picked && props.picked.ack) || 0;
let known = { rev: -1, ack: 0, units: {} };
const pending = new Map();  // seq -> { units, state }, drawn before the answer comes

function stateOf(unit) {
  let now = known.units[unit] || null;
  for (const change of pending.values()) {
    if (change.units.includes(unit)) now = change.state === "none" ? null : { state: change.state, round: null };
  }
  return now;
}

function ask(units, state) {
  if (!units.length) return;
  seq += 1;
  const mine = seq;
  pending.set(mine, { units, state });
  trigger("units_change", { units, state, seq: mine });
  setTimeout(() => { if (pending.delete(mine)) drawMarks(); }, REPLY_LIMIT);
  const what = { picked: "picked", banned: "banned", none: "cleared" }[state];
  say(units.length === 1 ? `${units[0]} ${what}` : `${units.length} units ${what}`);
  drawMarks();
}

function receive() {
  const picked = props.picked || {};
  if (!(picked.rev >= known.rev)) return;  // an older answer overtaken by a newer one
  known = { rev: picked.rev, ack: Number(picked.ack) || 0, units: picked.units || {} };
  for (const sent of [...pending.keys()]) if (sent <= known.ack) pending.delete(sent);
  drawMarks();
}

function toggle(unit) {
  ask([unit], stateOf(unit) ? "none" : "picked");
}

function ban(unit) {
  const now = stateOf(unit);
  ask([unit], now && now.state === "banned" ? "none" : "banned");
}

function toggleAll(units) {
  const free = units.filter((unit) => { const now = stateOf(unit); return !now || now.state !== "banned"; });
  const out = free.filter((unit) => !stateOf(unit));
  if (out.length) ask(out, "picked");
  else ask(free, "none");
}

// ---------------------------------------------------------------- the frame

const finding = make("p", "finding");
const bar = make("div", "map-bar");
const switcher = make("div", "segmented");
switcher.setAttribute("role", "group");
switcher.setAttribute("aria-label", "Colour the map by");
const legend = make("div", "map-legend");
const grids = make("div", "map-towers");
const key = make("div", "map-key");
const live = make("div", "visually-hidden");
live.setAttribute("aria-live", "polite");
const empty = make("div", "empty-state");
empty.append(make("strong", "", "No map yet"), make("p", "", "Score the model to draw its map."));
const tip = make("div", "map-tip");
tip.hidden = true;

bar.append(switcher, legend);
root.replaceChildren(finding, bar, grids, key, empty, tip, live);
buildSwitcher();
buildKey();

let towers = [];
let shape = "";
let colour = null;
let opened = null;  // the colour Python asked for last
let tipped = null;  // the cell the tip describes

function say(text) {
  live.textContent = text;
}

function buildSwitcher() {
  for (const [name, score] of Object.entries(SCORES)) {
    const button = make("button", "", score.title);
    button.type = "button";
    button.dataset.colour = name;
    button.addEventListener("click", () => { colour = name; draw(); });
    switcher.append(button);
  }
}

function buildKey() {
  const entries = [["edited", "edited, with its round"], ["picked", "picked by you"], ["banned", "banned"]];
  for (const [state, words] of entries) {
    const swatch = svg("svg", { width: 40, height: 24, class: "map-marks", "aria-hidden": "true" });
    swatch.append(svg("rect", { width: 40, height: 24, class: "swatch" }));
    mark(swatch, { state, round: state === "edited" ? 1 : null }, 0, 0, 40, 24);
    const entry = make("span", "map-key-entry");
    entry.append(swatch, make("span", "", words));
    key.append(entry);
  }
  key.append(make("span", "map-key-help",
    "Click picks or clears, right-click or B bans. A row or column name takes all its units."));
}

function buildTowers(list) {
  for (const tower of towers) Plotly.purge(tower.plot);
  towers = list.map((data) => buildTower(data));
  grids.replaceChildren(...towers.map((tower) => tower.box));
}

function buildTower(data) {
  const box = make("section", "map-tower");
  const title = make("h3", "", data.title);
  const frame = make("div", "map-frame");
  const across = make("div", "map-columns");
  const down = make("div", "map-rows");
  const field = make("div", "map-field");
  const plot = make("div", "map-plot");
  const marks = svg("svg", { class: "map-marks", "aria-hidden": "true" });
  field.tabIndex = 0;
  field.setAttribute("role", "application");
  field.setAttribute("aria-label", `${data.title}. Arrow keys move, Space picks or clears, B bans.`);
  field.append(plot, marks);
  frame.append(make("div", "map-corner", "head"), across, down, field);
  box.append(title, frame);
  const tower = { data, box, frame, across, down, field, plot, marks, row: 0, column: 0, byKeys: false, w: 0, h: 0 };
  data.columns.forEach((name, column) => across.append(header(tower, name, () => unitsOf(tower, null, column))));
  data.rows.forEach((name, row) => down.append(header(tower, name, () => unitsOf(tower, row, null))));
  listen(tower);
  return tower;
}

function header(tower, name, units) {
  const button = make("button", "", name);
  button.type = "button";
  button.tabIndex = -1;  // the keyboard reaches headers through the field: one step left of or above the cells
  button.title = `Pick or clear all units of ${name}`;
  button.addEventListener("click", () => toggleAll(units()));
  return button;
}

function unitsOf(tower, row, column) {
  const { units } = tower.data;
  const cells = row !== null ? units[row] : units.map((line) => line[column]);
  return cells.filter((unit) => unit !== null);
}

// ---------------------------------------------------------------- drawing

let queued = false;

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawNow(); });
}

function drawNow() {
  const value = props.value || {};
  const list = value.towers || [];
  if (value.colour && value.colour !== opened) { opened = value.colour; colour = value.colour; }
  finding.textContent = value.finding || "";
  finding.hidden = !value.finding;
  empty.hidden = list.length > 0;
  bar.hidden = grids.hidden = key.hidden = list.length === 0;
  const next = JSON.stringify(list.map((tower) => [tower.name, tower.title, tower.rows, tower.columns]));
  if (next !== shape) { shape = next; buildTowers(list); }
  towers.forEach((tower, i) => { tower.data = list[i]; });
  root.dataset.towers = String(list.length);
  for (const button of switcher.children) button.setAttribute("aria-pressed", String(button.dataset.colour === colour));
  if (list.length && !grids.clientWidth) return;  // in a hidden tab; the resize observer calls again
  layOut();
  if (list.length) drawLegend(domain());
  for (const tower of towers) drawCells(tower, domain());
  drawMarks();
  root.dataset.colour = colour || "";
  root.dataset.ready = "true";
}

function domain() {
  return ((props.value || {}).domain || {})[colour] || [0, 1];
}

function drawn(value) {
  if (value === null || value === undefined) return null;
  if (!SCORES[colour].log) return value;
  return value > 0 ? Math.log10(value) : domain()[0];
}

function layOut() {
  const room = grids.clientWidth;
  const gap = 32;
  for (const tower of towers) tower.label = labelWidth(tower.data.rows);
  const wanted = towers.reduce((sum, t) => sum + t.label + t.data.columns.length * ROOMY_CELL, 0);
  const beside = wanted + gap * (towers.length - 1) <= room;
  grids.classList.toggle("stacked", !beside);
  const labels = towers.reduce((sum, t) => sum + t.label, 0);
  const columns = towers.reduce((sum, t) => sum + t.data.columns.length, 0);
  const shared = (room - labels - gap * (towers.length - 1)) / columns;
  for (const tower of towers) {
    const own = (room - tower.label) / tower.data.columns.length;
    const rows = tower.data.rows.length;
    tower.w = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor(beside ? shared : own)));
    tower.h = rows <= 8 ? 36 : rows <= 14 ? 30 : rows <= 26 ? 24 : 20;
    size(tower);
  }
}

function labelWidth(names) {
  const longest = Math.max(...names.map((name) => name.length), 4);
  return Math.min(200, Math.ceil(longest * 7.2) + 16);
}

function size(tower) {
  const { data, frame, field, marks, w, h } = tower;
  const width = w * data.columns.length;
  const height = h * data.rows.length;
  frame.style.gridTemplateColumns = `${tower.label}px ${width}px`;
  frame.style.setProperty("--cell-w", `${w}px`);
  frame.style.setProperty("--cell-h", `${h}px`);
  field.style.width = `${width}px`;
  field.style.height = `${height}px`;
  marks.setAttribute("width", width);
  marks.setAttribute("height", height);
  tower.across.classList.toggle("narrow", w < 32);
}

function drawCells(tower, [low, high]) {
  const { data, plot, w, h } = tower;
  const score = SCORES[colour];
  const ramp = score.ramp.map((shade, i) => [i / (score.ramp.length - 1), shade]);
  const z = data[colour].map((row, r) => row.map((cell, c) => (data.units[r][c] === null ? null : drawn(cell))));
  const axis = { visible: false, fixedrange: true };
  Plotly.react(plot, [{
    type: "heatmap", z, zmin: low, zmax: high, colorscale: ramp, showscale: false, xgap: 2, ygap: 2,
    hoverongaps: false, hoverinfo: "skip",
  }], {
    width: w * data.columns.length, height: h * data.rows.length, margin: { l: 0, r: 0, t: 0, b: 0 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis, range: [-0.5, data.columns.length - 0.5] },
    yaxis: { ...axis, range: [data.rows.length - 0.5, -0.5] },
  }, { staticPlot: true });
}

function drawLegend([low, high]) {
  const score = SCORES[colour];
  const seen = towers.flatMap((tower) => tower.data[colour].flat()).filter((cell) => cell !== null).map(drawn);
  const shown = (at) => number(score.log ? 10 ** at : at, 2);
  const strip = make("div", "map-strip");
  strip.style.background = `linear-gradient(to right, ${score.ramp.join(", ")})`;
  const ticks = make("div", "map-ticks");
  const below = seen.some((cell) => cell < low - 1e-9) ? "\u2264 " : "";
  const above = seen.some((cell) => cell > high + 1e-9) ? "\u2265 " : "";
  ticks.append(make("span", "", below + shown(low)), make("span", "", shown((low + high) / 2)),
    make("span", "", above + shown(high)));
  const words = make("div", "map-legend-words", score.words + (score.log ? " (log scale)" : ""));
  const scale = make("div", "map-scale");
  scale.append(strip, ticks);
  const ends = colour === "ratio" ? ["more retain", "more forget"] : ["low", "high"];
  const line = make("div", "map-scale-line");
  line.append(make("span", "", ends[0]), scale, make("span", "", ends[1]));
  legend.replaceChildren(words, line);
}

function drawMarks() {
  let taken = 0;
  for (const tower of towers) {
    const { data, marks, w, h } = tower;
    marks.replaceChildren();
    data.units.forEach((row, r) => row.forEach((unit, c) => {
      if (unit === null) return;
      if (colour && data[colour][r][c] === null) marks.append(unscored(c * w, r * h, w, h));
      const now = stateOf(unit);
      if (!now) return;
      if (now.state !== "banned") taken += 1;
      mark(marks, now, c * w, r * h, w, h);
    }));
    drawDivider(tower);
    drawFocus(tower);
  }
  root.dataset.units = String(taken);
  root.dataset.seq = String(seq);
  root.dataset.ack = String(known.ack);
  if (!tip.hidden && tipped) fillTip(tipped);
}

function unscored(x, y, w, h) {
  return svg("rect", { x: x + 1.5, y: y + 1.5, width: w - 3, height: h - 3, class: "unscored" });
}

// Black under white reads on every cell colour and in both themes; the state is in the shape.
function mark(parent, now, x, y, w, h) {
  const cx = x + w / 2;
  const cy = y + h / 2;
  if (now.state === "banned") {
    const [dx, dy] = [Math.min(w, 28) / 2 - 5, Math.min(h, 28) / 2 - 5];
    const d = `M${cx - dx} ${cy - dy}L${cx + dx} ${cy + dy}M${cx - dx} ${cy + dy}L${cx + dx} ${cy - dy}`;
    parent.append(svg("path", { d, class: "under" }), svg("path", { d, class: "over" }));
    return;
  }
  const box = { x: x + 4, y: y + 4, width: w - 8, height: h - 8 };
  parent.append(svg("rect", { ...box, class: "under" }), svg("rect", { ...box, class: `over ${now.state}` }));
  const glyph = now.state === "picked" ? "+" : now.round === null || now.round === undefined ? "" : String(now.round);
  if (glyph) parent.append(svg("text", { x: cx, y: cy, class: "glyph" }, glyph));
}

function drawDivider({ data, marks, w, h }) {
  data.columns.forEach((name, c) => {
    if (c && /^\d+$/.test(data.columns[c - 1]) && !/^\d+$/.test(name)) {
      marks.prepend(svg("line", { x1: c * w, x2: c * w, y1: 0, y2: h * data.rows.length, class: "divider" }));
    }
  });
}

function drawFocus(tower) {
  const { field, marks, row, column, w, h } = tower;
  for (const [headers, index, other] of [[tower.across, column, row], [tower.down, row, column]]) {
    [...headers.children].forEach((button, i) => button.classList.toggle("focus", tower.byKeys
      && document.activeElement === field && other === -1 && i === index));
  }
  if (document.activeElement !== field || !tower.byKeys || row < 0 || column < 0) return;
  const box = { x: column * w, y: row * h, width: w, height: h, rx: 3 };
  marks.append(svg("rect", { ...box, class: "focus-under" }), svg("rect", { ...box, class: "focus-over" }));
}

// ---------------------------------------------------------------- hover, clicks, keys

function listen(tower) {
  const { field } = tower;
  field.addEventListener("click", (event) => act(tower, event, toggle));
  field.addEventListener("contextmenu", (event) => { event.preventDefault(); act(tower, event, ban); });
  field.addEventListener("pointerdown", () => { tower.byKeys = false; });
  field.addEventListener("pointermove", (event) => hover(tower, event));
  field.addEventListener("pointerleave", () => { tip.hidden = true; });
  field.addEventListener("keydown", (event) => press(tower, event));
  field.addEventListener("focus", () => { tower.byKeys = field.matches(":focus-visible"); drawMarks(); });
  field.addEventListener("blur", () => { tip.hidden = true; drawMarks(); });
}

function cellAt(tower, event) {
  const edge = tower.field.getBoundingClientRect();
  const column = Math.floor((event.clientX - edge.left) / tower.w);
  const row = Math.floor((event.clientY - edge.top) / tower.h);
  const inside = row >= 0 && column >= 0 && row < tower.data.rows.length && column < tower.data.columns.length;
  return inside ? { row, column, unit: tower.data.units[row][column] } : null;
}

function act(tower, event, action) {
  const cell = cellAt(tower, event);
  if (!cell || cell.unit === null) return;
  tower.row = cell.row;
  tower.column = cell.column;
  action(cell.unit);
  showTip(tower, cell);
}

function hover(tower, event) {
  const cell = cellAt(tower, event);
  if (!cell || cell.unit === null) { tip.hidden = true; tower.field.style.cursor = "default"; return; }
  tower.field.style.cursor = "pointer";
  showTip(tower, cell);
}

function press(tower, event) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const move = moves[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  tower.byKeys = true;
  if (move) step(tower, move);
  else if (event.key === " " || event.key === "Enter") choose(tower);
  else if (event.key === "b" || event.key === "B") banHere(tower);
  else if (event.key === "Escape") tip.hidden = true;
  else return;
  event.preventDefault();
}

function step(tower, [down, across]) {
  const { rows, columns, units } = tower.data;
  let row = Math.max(-1, Math.min(rows.length - 1, tower.row + down));
  let column = Math.max(-1, Math.min(columns.length - 1, tower.column + across));
  if (row === -1 && column === -1) [row, column] = [tower.row, tower.column];  // no corner header
  tower.row = row;
  tower.column = column;
  tip.hidden = true;
  if (row === -1) say(`column ${columns[column]}: Space picks or clears all its units`);
  else if (column === -1) say(`row ${rows[row]}: Space picks or clears all its units`);
  else if (units[row][column] === null) say(`${rows[row]}, ${columns[column]}: no unit here`);
  else {
    const unit = units[row][column];
    const now = stateOf(unit);
    say(`${unit}, phi ${number(tower.data.phi[row][column])}, ${now ? STATES[now.state] : "untouched"}`);
    showTip(tower, { row, column, unit });
  }
  drawMarks();
}

function choose(tower) {
  const { row, column } = tower;
  if (row === -1) toggleAll(unitsOf(tower, null, column));
  else if (column === -1) toggleAll(unitsOf(tower, row, null));
  else if (tower.data.units[row][column] !== null) toggle(tower.data.units[row][column]);
}

function banHere(tower) {
  const { row, column } = tower;
  const unit = row < 0 || column < 0 ? null : tower.data.units[row][column];
  if (unit !== null) ban(unit);
}

function showTip(tower, { row, column, unit }) {
  tipped = { tower, row, column, unit };
  fillTip(tipped);
  tip.hidden = false;
  placeTip(tipped);
}

function fillTip({ tower: { data }, row, column, unit }) {
  const now = stateOf(unit);
  const state = now ? STATES[now.state] + (now.round ? `, round ${now.round}` : "") : "untouched";
  const count = (value) => (value === null ? "\u2013" : value.toLocaleString("en"));
  const facts = [["phi", number(data.phi[row][column])], ["pressure", number(data.pressure[row][column])],
    ["separation", number(data.separation[row][column])], ["forget / retain", number(data.ratio[row][column])],
    ["rank", count(data.rank[row][column])], ["parameters", count(data.parameters[row][column])], ["state", state]];
  const list = make("dl");
  for (const [label, text] of facts) list.append(make("dt", "", label), make("dd", "", text));
  tip.replaceChildren(make("strong", "", unit), list);
}

// Below the cell, or above it where the window ends, so that the row being read stays in sight.
function placeTip({ tower, row, column }) {
  const field = tower.field.getBoundingClientRect();
  const below = field.top + (row + 1) * tower.h + 10;
  const above = field.top + row * tower.h - tip.offsetHeight - 10;
  const left = field.left + (column + 0.5) * tower.w - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below + tip.offsetHeight > window.innerHeight && above > 0 ? above : below}px`;
}

// ---------------------------------------------------------------- start

watch("value", draw);
watch("picked", receive);
new ResizeObserver(draw).observe(root);
window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });
receive();
draw();
