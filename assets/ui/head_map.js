// The map: what it shows, what is picked, and when it draws. Its other files paint, search, brush and listen.
const root = element.querySelector(".head-map");

const AHEAD_LIMIT = 2000;  // ms for which another alpha is drawn before Python has spoken of it
const REPLY_LIMIT = 15000;  // ms after which an unanswered click is no longer drawn
const UNTOUCHED = { state: "free", round: null, locked: false, strength: 1 };
const MIN_CELL = 20;
const ROOMY_CELL = 44;  // towers stand side by side while their cells can be this wide
const MAX_CELL = 72;
const BAND = 28;  // px above the first row of a group, for its name
const DIVIDE = 10;  // px between the heads and what is not a head
const TALLEST = 680;  // px of one tower before it scrolls inside the card
const SCROLLBAR = 16;

// ---------------------------------------------------------------- elements

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function pushButton(className, text, act) {
  const node = make("button", className, text);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(digits - 1).replace("e+", "e").replaceAll("-", "\u2212");
  return String(Number(value.toPrecision(digits))).replace("-", "\u2212");
}

function say(text) {
  live.textContent = text;
}

const finding = make("p", "finding");
const bar = make("div", "map-bar");
const switcher = make("div", "segmented");
switcher.setAttribute("role", "group");
switcher.setAttribute("aria-label", "Colour the map by");
const guide = make("div", "map-guide");
const legend = make("div", "map-legend");
const grids = make("div", "map-towers");
const foot = make("div", "map-foot");
const key = make("div", "map-key");
const alone = make("p", "map-alone");
const live = make("div", "visually-hidden");
live.setAttribute("aria-live", "polite");
const empty = make("div", "empty-state");
empty.append(make("strong", "", "No map yet"), make("p", "", "Score the model to draw its map."));

bar.append(switcher, search.box, actions);
guide.append(legend, brush.box);
foot.append(key, alone);
root.replaceChildren(finding, bar, guide, grids, foot, empty, tip, live);

// ---------------------------------------------------------------- what is picked

let seq = Number(props.picked && props.picked.ack) || 0;
let known = { rev: -1, ack: 0, units: new Map(), isolated: null };
let pending = [];  // { units, action, seq } asked and drawn, not answered; seq is null until it is sent

function stateOf(unit) {
  let now = known.units.get(unit) || UNTOUCHED;
  for (const change of pending) if (change.units.has(unit)) now = after(now, change.action);
  return now;
}

// Our guess until the answer comes; only the server knows whether a unit has a change to keep.
function after(was, action) {
  if (action === "in") return { ...was, state: "edited" };
  if (action === "out") return { ...was, state: was.state === "edited" && was.round !== null ? "off" : "free" };
  if (action === "ban") return { ...was, state: "banned" };
  if (action === "unban") return { ...was, state: "free" };
  if (action === "lock" || action === "unlock") return { ...was, locked: action === "lock" };
  return was;
}

function isolated() {
  let unit = known.isolated;
  for (const change of pending) {
    if (change.action === "isolate") [unit] = change.units;
    if (change.action === "restore") unit = null;
  }
  return unit;
}

function isIn(unit) {
  return stateOf(unit).state === "edited";
}

function refusal(unit) {
  const now = stateOf(unit);
  if (now.state === "banned") return "banned; press B to lift the ban";
  return now.locked ? "locked; press L to unlock" : "";
}

const DONE = { in: "put in", out: "taken out", lock: "locked", unlock: "unlocked", ban: "banned",
  unban: "no longer banned", isolate: "isolated: it alone is at work", restore: "no longer isolated" };

function ask(units, action) {
  if (!units.length) return;
  pending.push({ units: new Set(units), action, seq: null });
  say(`${units.length === 1 ? units[0] : `${units.length} units`} ${DONE[action]}`);
  send();
  draw();
}

// Requests travel side by side and may overtake one another, so those about the same units go one after the other.
function send() {
  pending.forEach((request, i) => {
    if (request.seq !== null || pending.slice(0, i).some((earlier) => clash(earlier, request))) return;
    seq += 1;
    request.seq = seq;
    trigger("units_change", { units: [...request.units], action: request.action, seq });
    setTimeout(() => forget(request), REPLY_LIMIT);
  });
  root.dataset.seq = String(seq);
  root.dataset.pending = String(pending.length);
}

function clash(one, other) {
  const turns = [one, other].every(({ action }) => action === "isolate" || action === "restore");
  return turns || [...one.units].some((unit) => other.units.has(unit));
}

function forget(request) {
  if (!pending.includes(request)) return;
  pending = pending.filter((one) => one !== request);
  send();
  draw();
}

function receive() {
  const picked = props.picked || {};
  if (!(picked.rev >= known.rev)) return;  // an older answer overtaken by a newer one
  const units = new Map(Object.entries(picked.units || {}));
  known = { rev: picked.rev, ack: Number(picked.ack) || 0, units, isolated: picked.isolated || null };
  hearFocus(picked.focus || null);
  pending = pending.filter((request) => request.seq === null || request.seq > known.ack);
  send();
  draw();
}

// Puts in what is not in yet; takes all out where all are in, or where `out` says so.
function toggleAll(units, out = false) {
  const free = units.filter((unit) => !refusal(unit));
  const missing = free.filter((unit) => !isIn(unit));
  if (missing.length && !out) return ask(missing, "in");
  const present = free.filter(isIn);
  if (present.length) return ask(present, "out");
  return say(free.length ? "none of these is in the edit set" : "all of these are banned or locked");
}

function toggleIsolation(unit) {
  const now = isolated();
  if (now === null) ask([unit], "isolate");
  else ask([now], "restore");
}

// ---------------------------------------------------------------- towers

let value = {};
let towers = [];
let cells = [];  // { tower, row, column, unit } of every unit there is, in reading order
let ranked = 0;  // how many of them have a rank
let shape = "";
let shown = null;  // name of the measure in colour
let opened = null;  // the measure Python asked for last

function measures() {
  return value.measures || [];
}

function measureNow() {
  return measures().find((one) => one.name === shown);
}

function cellOf(tower, grid, row, column) {
  const line = tower.data[grid] && tower.data[grid][row];
  return line === undefined || line === null || line[column] === undefined ? null : line[column];
}

function buildTower(data) {
  const box = make("section", "map-tower");
  const scroller = make("div", "map-scroll");
  const frame = make("div", "map-frame");
  const across = make("div", "map-columns");
  const down = make("div", "map-rows");
  const field = make("div", "map-field");
  const canvas = make("canvas");
  const lenses = ["looked", "hover", "range", "cursor"].map((name) => make("div", `map-${name}`));
  for (const lens of lenses) lens.hidden = true;
  const [looked, hovered, range, cursor] = lenses;
  field.tabIndex = 0;
  field.setAttribute("role", "application");
  canvas.setAttribute("aria-hidden", "true");
  field.append(canvas, ...lenses);
  frame.append(make("div", "map-corner", "head"), across, down, field);
  scroller.append(frame);
  box.append(make("h3", "", data.title), scroller);
  const tower = { data, box, scroller, frame, across, down, field, canvas, looked, hovered, range, cursor,
    row: 0, column: 0, anchor: null, chosen: null, byKeys: false, w: 0, h: 0, lefts: [], tops: [] };
  tower.columnHeads = data.columns.map((name, column) => header(tower, name, null, column));
  tower.rowHeads = data.rows.map((name, row) => header(tower, name, row, null));
  across.append(...tower.columnHeads);
  tower.rowHeads.forEach((head, row) => {
    if (newGroup(data, row)) down.append(make("div", "map-group", data.groups[row]));
    down.append(head);
  });
  listen(tower);
  return tower;
}

function newGroup({ groups }, row) {
  return Boolean(groups && groups.length) && groups[row] !== groups[row - 1];
}

function isHead(name) {
  return /^\d+$/.test(name);
}

function header(tower, name, row, column) {
  if (value.readonly) return make("span", "map-header", name);
  const button = pushButton("map-header", name, () => toggleAll(unitsOf(tower, row, column)));
  button.tabIndex = -1;  // the keyboard reaches headers through the field: one step left of or above the cells
  button.title = `Put in or take out all units of ${row === null && isHead(name) ? `head ${name}` : name}`;
  return button;
}

function unitsOf(tower, row, column) {
  const { units } = tower.data;
  const cells = row !== null ? units[row] : units.map((line) => line[column]);
  return cells.filter((unit) => unit !== null);
}

function listCells() {
  cells = towers.flatMap((tower) => tower.data.units.flatMap((line, row) => line.flatMap((unit, column) =>
    (unit === null ? [] : [{ tower, row, column, unit }]))));
  ranked = cells.filter(({ tower, row, column }) => cellOf(tower, "rank", row, column) !== null).length;
}

// ---------------------------------------------------------------- layout

function layOut() {
  const room = grids.clientWidth;
  const gap = 32;
  for (const tower of towers) {
    tower.h = rowHeight(tower.data.rows.length);
    tower.label = labelWidth(tower.data.rows);
    placeRows(tower);
    tower.extra = tower.label + divides(tower.data.columns) * DIVIDE + (tower.height + 24 > TALLEST ? SCROLLBAR : 0);
  }
  const columns = towers.reduce((sum, tower) => sum + tower.data.columns.length, 0);
  const extras = towers.reduce((sum, tower) => sum + tower.extra, gap * (towers.length - 1));
  const beside = extras + columns * ROOMY_CELL <= room;
  grids.classList.toggle("stacked", !beside);
  for (const tower of towers) {
    const own = beside ? (room - extras) / columns : (room - tower.extra) / tower.data.columns.length;
    tower.w = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor(own)));
    placeColumns(tower);
    size(tower);
  }
}

function rowHeight(rows) {
  return rows <= 8 ? 36 : rows <= 14 ? 30 : rows <= 26 ? 24 : 20;
}

function labelWidth(names) {
  const longest = Math.max(...names.map((name) => name.length), 4);
  return Math.min(200, Math.ceil(longest * 7.2) + 16);
}

function divides(columns) {
  return columns.filter((name, c) => startsAnew(columns, c)).length;
}

function startsAnew(columns, c) {
  return c > 0 && isHead(columns[c - 1]) && !isHead(columns[c]);
}

function placeRows(tower) {
  let y = 0;
  tower.tops = tower.data.rows.map((name, row) => {
    if (newGroup(tower.data, row)) y += BAND;
    y += tower.h;
    return y - tower.h;
  });
  tower.height = y;
}

function placeColumns(tower) {
  let x = 0;
  tower.lefts = tower.data.columns.map((name, column) => {
    if (startsAnew(tower.data.columns, column)) x += DIVIDE;
    x += tower.w;
    return x - tower.w;
  });
  tower.width = x;
}

function size({ data, frame, field, across, columnHeads, label, w, h, width, height }) {
  frame.style.gridTemplateColumns = `${label}px ${width}px`;
  frame.style.setProperty("--cell-w", `${w}px`);
  frame.style.setProperty("--cell-h", `${h}px`);
  frame.style.setProperty("--band", `${BAND}px`);
  field.style.width = `${width}px`;
  field.style.height = `${height}px`;
  across.classList.toggle("narrow", w < 32);
  columnHeads.forEach((head, c) => { head.style.marginLeft = startsAnew(data.columns, c) ? `${DIVIDE}px` : "0"; });
}

// ---------------------------------------------------------------- drawing

let queued = false;

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawNow(); });
}

function drawNow() {
  const started = performance.now();
  take(ahead(props.value || {}));
  const some = towers.length > 0;
  drawFinding();
  empty.hidden = some;
  bar.hidden = guide.hidden = grids.hidden = foot.hidden = !some;
  if (some && !grids.clientWidth) return;  // in a hidden tab; the resize observer calls again
  layOut();
  findMatches();
  const look = readLook();
  for (const tower of towers) paintTower(tower, look);
  if (some) drawAround(look);
  publish(started);
}

// Its room grows and never shrinks while the map is this wide: a sentence a line shorter would move cells away from
// under the pointer.
let findingWidth = 0;

function drawFinding() {
  finding.textContent = value.finding || "";
  finding.hidden = !value.finding;
  if (finding.hidden || finding.clientWidth !== findingWidth) finding.style.minHeight = "";
  findingWidth = finding.clientWidth;
  if (findingWidth) finding.style.minHeight = `${finding.offsetHeight}px`;
}

// Another alpha needs only arithmetic, so it is drawn at once; Python's own numbers follow.
let alphaAhead = null;
let alphaTimer = null;

function previewAlpha(event) {
  alphaAhead = Number(event.detail);
  clearTimeout(alphaTimer);
  alphaTimer = setTimeout(() => { alphaAhead = null; draw(); }, AHEAD_LIMIT);
  draw();
}

function ahead(told) {
  if (told.alpha === alphaAhead) alphaAhead = null;
  if (alphaAhead === null || !told.towers || told.alpha === null) return told;
  const towers = told.towers.map((tower) => ({ ...tower, phi: tower.pressure.map((row, r) => row.map((pressure, c) => (
    pressure === null ? null : pressure * tower.separation[r][c] ** alphaAhead))) }));
  return { ...told, towers, alpha: alphaAhead };
}

function take(next) {
  value = next;
  const list = value.towers || [];
  if (value.measure !== opened || !measureNow()) shown = opened = value.measure || null;
  const outline = JSON.stringify([Boolean(value.readonly), list.map((tower) => [tower.name, tower.title, tower.rows,
    tower.columns, tower.groups])]);
  if (outline !== shape) {
    shape = outline;
    towers = list.map(buildTower);
    tip.hidden = true;
    grids.replaceChildren(...towers.map((tower) => tower.box));
  }
  towers.forEach((tower, i) => { tower.data = list[i]; });
  listCells();
  drawSwitcher();
}

function drawSwitcher() {
  const names = measures().map((one) => one.name).join(" ");
  if (switcher.dataset.names !== names) {
    switcher.dataset.names = names;
    switcher.replaceChildren(...measures().map(({ name, title }) => {
      const button = pushButton("term", title, () => { shown = name; draw(); });
      button.dataset.term = button.dataset.colour = name;
      return button;
    }));
    switcher.hidden = measures().length < 2;
  }
  for (const button of switcher.children) button.setAttribute("aria-pressed", String(button.dataset.colour === shown));
}

function drawAround(look) {
  drawLegend(look);
  drawKey(look);
  drawBrush();
  goToLooked();
  drawCursor();
  const only = isolated();
  alone.textContent = only === null ? "" : `Only ${only} is at work. Press Escape or double-click again to restore.`;
  if (!tip.hidden && tipped) fillTip(tipped);
}

function drawLegend(look) {
  const one = measureNow();
  if (!one) return;
  const [low, high] = domainOf(one);
  const seen = towers.flatMap((tower) => tower.data[one.name].flat()).map((cell) => drawn(one, cell));
  const below = seen.some((at) => at !== null && at < low - 1e-9) ? "\u2264 " : "";
  const above = seen.some((at) => at !== null && at > high + 1e-9) ? "\u2265 " : "";
  const at = (place) => number(one.log ? 10 ** place : place, 2);
  const strip = make("div", "map-strip");
  strip.style.background = `linear-gradient(to right, ${look.ramps[one.ramp].stops.join(", ")})`;
  const ticks = make("div", "map-ticks");
  ticks.append(make("span", "", below + at(low)), make("span", "", at((low + high) / 2)),
    make("span", "", above + at(high)));
  const scale = make("div", "map-scale");
  scale.append(strip, ticks);
  const line = make("div", "map-scale-line");
  line.append(make("span", "", one.ends[0]), scale, make("span", "", one.ends[1]));
  legend.replaceChildren(make("div", "map-legend-words", legendWords(one)), line);
}

function legendWords(one) {
  const notes = one.log ? ["log scale"] : [];
  const alpha = value.alpha ?? null;
  if (one.name === "phi" && alpha !== null) notes.push(`alpha ${number(alpha)}`);
  return one.words + (notes.length ? ` (${notes.join(", ")})` : "");
}

function domainOf(one) {
  return (value.domain || {})[one.name] || [0, 1];
}

function drawn(one, cell) {
  if (cell === null || cell === undefined || !one.log) return cell ?? null;
  return cell > 0 ? Math.log10(cell) : domainOf(one)[0];
}

function publish(started) {
  const facts = { towers: towers.length, units: cells.filter(({ unit }) => isIn(unit)).length, seq,
    ack: known.ack, colour: shown || "", drawMs: (performance.now() - started).toFixed(1), ready: true };
  for (const [name, fact] of Object.entries(facts)) root.dataset[name] = String(fact);
}

// ---------------------------------------------------------------- start

watch("value", () => { hearTau(); draw(); });
watch("picked", receive);
new ResizeObserver(draw).observe(root);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
root.addEventListener("preview-alpha", previewAlpha);
root.addEventListener("preview-tau", previewTau);
document.addEventListener("keydown", findBySlash);
document.fonts.load('700 14px "IBM Plex Mono"').then(draw);  // a canvas does not ask for its font by itself
window.addEventListener("scroll", scrolled, { passive: true, capture: true });
hearTau();
receive();
draw();
