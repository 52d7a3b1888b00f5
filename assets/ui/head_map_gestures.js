// Pointer and keyboard. Clicks are read from the pixel grid by our own listener, so none is lost however quick.

const SETTLE = 1500;  // ms after a report in which what is told may still be older than it
const REST = 150;  // ms the keyboard stays on a cell before others are told
const PAGE = 10;  // rows
const INVERSE = { in: "out", out: "in" };
const SAME_SPOT = 6;  // px the second click of a pair may be away from the first
let lastClick = { unit: null, action: null, only: null };  // `only`: the unit isolated when it came
let lastCell = null;  // { tower, cell, x, y } of the last click
let drag = null;  // { tower, from, to, out }; `to` is null until the pointer has left its first cell
let focusSeq = 0;
let lookedAt = null;  // the unit others describe
let lookTold = null;  // the one Python named last
let lookSent = -Infinity;  // when we last named one
let lookMoved = false;  // Python has named another one and the map has not gone there yet
let resting = null;

function listen(tower) {
  const { field } = tower;
  field.addEventListener("pointerdown", (event) => startDrag(tower, event));
  field.addEventListener("pointermove", (event) => (drag ? stretch(event) : hover(tower, event)));
  field.addEventListener("pointerup", endDrag);
  field.addEventListener("pointercancel", cancelDrag);
  field.addEventListener("pointerleave", () => leave(tower));
  field.addEventListener("click", (event) => clicked(tower, event));
  field.addEventListener("contextmenu", (event) => rightClicked(tower, event));
  field.addEventListener("keydown", (event) => press(tower, event));
  field.addEventListener("focus", () => arrive(tower));
  field.addEventListener("blur", () => { tip.hidden = true; clearTimeout(resting); drawCursor(); });
}

function findBySlash(event) {
  if (!root.isConnected || !root.offsetParent || value.readonly) return;  // another map, or this one in a hidden tab
  if (event.key !== "/" || event.target.matches("input, textarea") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  search.input.focus();
}

function tellFocus(unit) {
  clearTimeout(resting);
  focusSeq += 1;
  lookedAt = unit;
  lookSent = performance.now();
  trigger("unit_focus", { unit, seq: focusSeq });
  drawCursor();
}

// An answer under way while a visitor clicks still names the unit before.
function hearFocus(told) {
  const news = told !== lookTold && told !== lookedAt && performance.now() - lookSent > SETTLE;
  lookTold = told;
  if (!news) return;
  lookedAt = told;
  lookMoved = told !== null;
}

function looked() {
  return cells.find(({ unit }) => unit === lookedAt);
}

function goToLooked() {
  const cell = looked();
  if (!cell || !lookMoved) return;
  lookMoved = false;
  Object.assign(cell.tower, { row: cell.row, column: cell.column, chosen: null });
  reveal(cell.tower);
}

// ---------------------------------------------------------------- cells under the pointer

function nearest(starts, size, at) {
  let i = 0;
  while (i < starts.length - 1 && at >= starts[i + 1]) i += 1;
  return { i, inside: at >= starts[i] && at < starts[i] + size };
}

function cellAt(tower, event) {
  const edge = tower.field.getBoundingClientRect();
  const across = nearest(tower.lefts, tower.w, event.clientX - edge.left);
  const down = nearest(tower.tops, tower.h, event.clientY - edge.top);
  const unit = tower.data.units[down.i][across.i];
  return { row: down.i, column: across.i, unit, inside: across.inside && down.inside && unit !== null };
}

function hover(tower, event) {
  const cell = cellAt(tower, event);
  if (!cell.inside) return leave(tower);
  tower.field.style.cursor = value.readonly ? "default" : "pointer";
  if (!tip.hidden && tipped && tipped.tower === tower && tipped.unit === cell.unit) return undefined;
  cover(tower.hovered, tower, cell, cell);
  markHeaders(tower, cell);
  return showTip(tower, cell);
}

function leave(tower) {
  tip.hidden = tower.hovered.hidden = true;
  tower.field.style.cursor = "default";
  markHeaders(tower, null);
}

function markHeaders(tower, cell) {
  tower.columnHeads.forEach((head, i) => head.classList.toggle("lit", cell !== null && i === cell.column));
  tower.rowHeads.forEach((head, i) => head.classList.toggle("lit", cell !== null && i === cell.row));
}

// Lays a frame over the rectangle between two cells.
function cover(node, { lefts, tops, w, h }, one, other) {
  const [left, right] = [one.column, other.column].sort((a, b) => a - b);
  const [top, bottom] = [one.row, other.row].sort((a, b) => a - b);
  Object.assign(node.style, { left: `${lefts[left]}px`, top: `${tops[top]}px`,
    width: `${lefts[right] + w - lefts[left]}px`, height: `${tops[bottom] + h - tops[top]}px` });
  node.hidden = false;
}

function unitsBetween({ data }, one, other) {
  const [left, right] = [one.column, other.column].sort((a, b) => a - b);
  const [top, bottom] = [one.row, other.row].sort((a, b) => a - b);
  return data.units.slice(top, bottom + 1).flatMap((line) => line.slice(left, right + 1))
    .filter((unit) => unit !== null);
}

// ---------------------------------------------------------------- clicks

function clicked(tower, event) {
  if (tower.swallow) { tower.swallow = false; return; }
  const cell = pairedCell(tower, event) || cellAt(tower, event);
  if (!cell.inside) return;
  lastCell = { tower, cell, x: event.clientX, y: event.clientY };
  const again = event.detail > 0 && event.detail % 2 === 0 && lastClick.unit === cell.unit;
  settleOn(tower, cell);
  let note = "";
  if (!again || value.readonly) tellFocus(cell.unit);
  if (value.readonly) note = "";
  else if (event.shiftKey) toggleAll(unitsBetween(tower, tower.anchor || cell, cell), event.altKey);
  else if (event.ctrlKey || event.metaKey) note = addOnly(cell.unit);
  else if (again) note = secondClick(cell.unit);
  else note = toggle(cell.unit);
  if (!event.shiftKey) tower.anchor = { row: cell.row, column: cell.column };
  showTip(tower, cell, note);
}

// The answer to the first click of a pair may move the map before the second one comes; it is meant for the same cell.
function pairedCell(tower, { detail, clientX, clientY }) {
  if (!lastCell || lastCell.tower !== tower || detail === 0 || detail % 2 === 1) return null;
  return Math.hypot(clientX - lastCell.x, clientY - lastCell.y) <= SAME_SPOT ? lastCell.cell : null;
}

function settleOn(tower, { row, column }) {
  Object.assign(tower, { row, column, byKeys: false, chosen: null });
  drawCursor();
}

function toggle(unit) {
  const note = refusal(unit);
  const action = note ? null : isIn(unit) ? "out" : "in";
  lastClick = { unit, action, only: isolated() };
  if (action) ask([unit], action);
  else say(`${unit} is ${note}`);
  return note;
}

function addOnly(unit) {
  lastClick = { unit: null, action: null, only: null };
  const note = refusal(unit) || (isIn(unit) ? "already in" : "");
  if (note) say(`${unit} is ${note}`);
  else ask([unit], "in");
  return note;
}

// The first click of the pair has toggled; that must not stay behind. Taking the isolated unit out restores the rest.
function secondClick(unit) {
  if (lastClick.action) ask([unit], INVERSE[lastClick.action]);
  if (stateOf(unit).state === "banned") return refusal(unit);
  if (lastClick.only === null || isolated() !== null) toggleIsolation(unit);
  return "";
}

function rightClicked(tower, event) {
  event.preventDefault();
  const cell = cellAt(tower, event);
  if (!cell.inside || value.readonly) return;
  settleOn(tower, cell);
  showTip(tower, cell, toggleBan([cell.unit]));
}

function toggleBan(units) {
  const free = units.filter((unit) => !stateOf(unit).locked);
  const note = "locked; press L to unlock";
  if (!free.length) say(`${units.length === 1 ? units[0] : "all of these"}: ${note}`);
  if (!free.length) return note;
  const open = free.filter((unit) => stateOf(unit).state !== "banned");
  if (open.length) ask(open, "ban");
  else ask(free, "unban");
  return "";
}

function toggleLock(units) {
  const loose = units.filter((unit) => !stateOf(unit).locked);
  if (loose.length) ask(loose, "lock");
  else ask(units, "unlock");
}

// ---------------------------------------------------------------- dragging a rectangle

function startDrag(tower, event) {
  tower.swallow = false;
  if (event.button !== 0 || event.pointerType !== "mouse" || value.readonly || event.ctrlKey || event.metaKey) return;
  drag = { tower, from: cellAt(tower, event), to: null, out: event.altKey };
}

function stretch(event) {
  const { tower, from } = drag;
  if (!(event.buttons & 1)) return cancelDrag();  // let go outside the map
  const cell = cellAt(tower, event);
  if (!drag.to && cell.row === from.row && cell.column === from.column) return hover(tower, event);
  if (!drag.to) tower.field.setPointerCapture(event.pointerId);
  Object.assign(drag, { to: cell, out: event.altKey });
  leave(tower);
  tower.range.classList.add("band");
  return cover(tower.range, tower, from, cell);
}

function endDrag() {
  if (drag && drag.to) {
    const { tower, from, to, out } = drag;
    tower.swallow = true;
    settleOn(tower, to);
    tower.anchor = { row: from.row, column: from.column };
    toggleAll(unitsBetween(tower, from, to), out);
  }
  cancelDrag();
}

function cancelDrag() {
  if (!drag) return;
  const { tower, to } = drag;
  tower.swallow = Boolean(to);
  drag = null;
  tower.range.classList.remove("band");
  drawCursor();
}

// ---------------------------------------------------------------- keys

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function press(tower, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const edits = { " ": choose, Enter: choose, b: banHere, l: lockHere, i: isolateHere };
  const reads = {
    Home: () => goTo(tower, tower.row, 0),
    End: () => goTo(tower, tower.row, tower.data.columns.length - 1),
    PageUp: () => step(tower, [-PAGE, 0]),
    PageDown: () => step(tower, [PAGE, 0]),
    Escape: () => letGo(tower),
    c: copyCsv,
    "?": () => openHelp(true),
  };
  if (MOVES[name] && event.shiftKey && !value.readonly) stretchKeys(tower, MOVES[name]);
  else if (MOVES[name]) step(tower, MOVES[name]);
  else if (edits[name] && !value.readonly) edits[name](tower);
  else if (edits[name] || reads[name]) (reads[name] || readHere)(tower);
  else return;
  event.preventDefault();
}

function limit(at, least, most) {
  return Math.max(least, Math.min(most, at));
}

function step(tower, [down, across]) {
  const { rows, columns } = tower.data;
  const least = value.readonly ? 0 : -1;
  const row = limit(tower.row + down, least, rows.length - 1);
  const column = limit(tower.column + across, least, columns.length - 1);
  if (row === -1 && column === -1) return;  // no corner header
  goTo(tower, row, column);
}

function stretchKeys(tower, [down, across]) {
  const { rows, columns } = tower.data;
  const [row, column] = [limit(tower.row, 0, rows.length - 1), limit(tower.column, 0, columns.length - 1)];
  const from = tower.chosen || { row, column };
  goTo(tower, limit(row + down, 0, rows.length - 1), limit(column + across, 0, columns.length - 1), from);
  say(`${unitsBetween(tower, from, tower).length} units selected: Space puts them in or takes them out`);
}

// Moves the keyboard to a cell or a header; `chosen` is the other corner of a selection.
function goTo(tower, row, column, chosen = null) {
  Object.assign(tower, { row, column, chosen, byKeys: true });
  leave(tower);
  clearTimeout(resting);
  reveal(tower);
  drawCursor();
  speak(tower);
}

function speak(tower) {
  const { row, column, data } = tower;
  if (row === -1) return say(`column ${data.columns[column]}: Space puts in or takes out all its units`);
  if (column === -1) return say(`row ${data.rows[row]}: Space puts in or takes out all its units`);
  const unit = data.units[row][column];
  if (unit === null) return say(`${data.rows[row]}, ${data.columns[column]}: no unit here`);
  const one = measureNow();
  const score = one ? `, ${one.title} ${number(cellOf(tower, one.name, row, column))}` : "";
  say(`${place({ tower, row, column })}${score}${value.readonly ? "" : `, ${stateWords(stateOf(unit))}`}`);
  showTip(tower, { row, column, unit });
  resting = setTimeout(() => tellFocus(unit), REST);
  return undefined;
}

// Sticky headers cover the edges, so scrolling to the cell itself is not enough.
function reveal({ scroller, label, row, column, lefts, tops, w, h }) {
  const [left, top] = [lefts[Math.max(0, column)], tops[Math.max(0, row)]];
  const [wide, tall] = [scroller.clientWidth - label, scroller.clientHeight - 24];
  if (left < scroller.scrollLeft) scroller.scrollLeft = left;
  if (left + w > scroller.scrollLeft + wide) scroller.scrollLeft = left + w - wide;
  if (top < scroller.scrollTop) scroller.scrollTop = row === 0 ? 0 : top;
  if (top + h > scroller.scrollTop + tall) scroller.scrollTop = top + h - tall;
}

function arrive(tower) {
  if (!tower.byKeys) tower.byKeys = tower.field.matches(":focus-visible");
  drawCursor();
  if (tower.byKeys) speak(tower);
}

function here(tower) {
  const { row, column, data } = tower;
  if (tower.chosen) return unitsBetween(tower, tower.chosen, tower);
  const units = row === -1 || column === -1 ? [] : [data.units[row][column]];
  return units.filter((unit) => unit !== null);
}

function choose(tower) {
  const { row, column } = tower;
  if (tower.chosen) return toggleAll(here(tower));
  if (row === -1) return toggleAll(unitsOf(tower, null, column));
  if (column === -1) return toggleAll(unitsOf(tower, row, null));
  const [unit] = here(tower);
  return unit === undefined ? undefined : remark(tower, unit, toggle(unit));
}

function readHere(tower) {
  const [unit] = here(tower);
  if (unit !== undefined) tellFocus(unit);
}

function banHere(tower) {
  const units = here(tower);
  if (units.length) remark(tower, units[0], toggleBan(units));
}

function lockHere(tower) {
  const units = here(tower);
  if (units.length) toggleLock(units);
}

function isolateHere(tower) {
  const [unit] = here(tower);
  if (unit === undefined) return;
  if (stateOf(unit).state === "banned") remark(tower, unit, refusal(unit));
  else toggleIsolation(unit);
}

function remark(tower, unit, note) {
  if (note && !tower.chosen) showTip(tower, { row: tower.row, column: tower.column, unit }, note);
}

// One Escape lets go of one thing, the latest first.
function letGo(tower) {
  const only = isolated();
  if (drag) cancelDrag();
  else if (tower.chosen) { tower.chosen = null; drawCursor(); say("selection cleared"); }
  else if (only !== null && !value.readonly) ask([only], "restore");
  else if (search.input.value) clearSearch();
  else { leave(tower); tellFocus(null); }
}

// ---------------------------------------------------------------- where the keyboard is

function drawCursor() {
  const seen = looked();
  root.dataset.focus = lookedAt || "";
  for (const tower of towers) {
    tower.looked.hidden = !seen || seen.tower !== tower;
    if (!tower.looked.hidden) cover(tower.looked, tower, seen, seen);
    const { row, column, chosen, cursor, range, field } = tower;
    const shownHere = document.activeElement === field && tower.byKeys;
    cursor.hidden = !shownHere || row < 0 || column < 0;
    if (!cursor.hidden) cover(cursor, tower, tower, tower);
    if (!drag) range.hidden = !chosen;
    if (chosen) cover(range, tower, chosen, tower);
    tower.columnHeads.forEach((head, i) => head.classList.toggle("focus", shownHere && row === -1 && i === column));
    tower.rowHeads.forEach((head, i) => head.classList.toggle("focus", shownHere && column === -1 && i === row));
    field.setAttribute("aria-label", `${tower.data.title}. ${value.readonly ? "Arrow keys move."
      : "Arrow keys move, Space puts in or takes out, B bans, L locks."}`);
  }
}
