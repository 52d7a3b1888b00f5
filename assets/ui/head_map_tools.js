// Beside the map: search, copy as CSV, the help popover, and the card that describes one unit.

// ---------------------------------------------------------------- search

const ALIASES = [["image", "visual", "vision"], ["text", "language"]];
const search = buildSearch();
let matches = null;  // Set of unit names; null while nothing is searched

function buildSearch() {
  const box = make("div", "map-search");
  const input = make("input");
  const count = make("span", "map-count");
  const apply = pushButton("map-button", "", () => toggleAll(matched().map(({ unit }) => unit)));
  Object.assign(input, { type: "search", placeholder: "Find units (press /)", autocomplete: "off", spellcheck: false });
  input.setAttribute("aria-label", "Find units by tower, layer, head or name");
  count.setAttribute("aria-live", "polite");
  input.addEventListener("input", draw);
  input.addEventListener("keydown", searchKey);
  box.append(input, count, apply);
  return { box, input, count, apply };
}

function searchKey(event) {
  if (event.key === "Escape" && search.input.value) clearSearch();
  else if (event.key === "Enter") focusFirst();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function clearSearch() {
  search.input.value = "";
  draw();
}

function focusFirst() {
  findMatches();
  const [first] = matched();
  if (!first) return;
  first.tower.byKeys = true;
  first.tower.field.focus();
  goTo(first.tower, first.row, first.column);
}

function matched() {
  return matches ? cells.filter(({ unit }) => matches.has(unit)) : [];
}

function findMatches() {
  const tests = termsOf(search.input.value).map((term) => new RegExp(term));
  const found = cells.filter((cell) => tests.every((test) => test.test(wordsOf(cell))));
  matches = tests.length ? new Set(found.map(({ unit }) => unit)) : null;
  search.count.textContent = matches ? `${found.length} of ${cells.length} units` : "";
  const free = found.map(({ unit }) => unit).filter((unit) => !refusal(unit));
  const missing = free.filter((unit) => !isIn(unit));
  search.apply.hidden = !matches || !free.length || Boolean(value.readonly);
  search.apply.textContent = missing.length ? `Put in ${missing.length}` : `Take out ${free.length}`;
}

// A word before a number belongs to it ("layer 3", "head 2"), and a number never matches part of a longer one.
function termsOf(text) {
  const words = text.toLowerCase().split(/[\s,;]+/).filter(Boolean);
  const terms = [];
  for (let i = 0; i < words.length; i += 1) {
    const paired = /^\d+$/.test(words[i + 1] || "") && !/\d$/.test(words[i]);
    const word = words[i].replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + (paired ? `[ ._-]?${words[i + 1]}` : "");
    terms.push((/^\d/.test(word) ? "(?<!\\d)" : "") + word + (/\d$/.test(word) ? "(?!\\d)" : ""));
    if (paired) i += 1;
  }
  return terms;
}

function wordsOf({ tower: { data }, row, column, unit }) {
  const [line, place] = [data.rows[row], data.columns[column]];
  const layer = (line.match(/\d+/g) || []).at(-1) ?? "";
  const kind = isHead(place) ? `head ${place}` : `${place} ${layer}`;
  const names = ALIASES.find((group) => group.includes(data.name.toLowerCase())) || [data.name];
  const group = (data.groups || [])[row] || "";
  return [data.title, ...names.map((name) => `${name} ${layer}`), group, line, kind, unit].join(" | ").toLowerCase();
}

// ---------------------------------------------------------------- copy

const copy = pushButton("map-button map-copy", "Copy CSV", copyCsv);
const help = buildHelp();
const actions = make("div", "map-actions");
actions.append(copy, help.box);

function csvRows() {
  const names = measures().map((one) => one.name);
  const head = ["tower", "layer", "column", "unit", ...names, "rank", "parameters"];
  return [[...head, "state", "round", "locked", "strength"], ...cells.map(({ tower, row, column, unit }) => {
    const { data } = tower;
    const now = stateOf(unit);
    const layer = data.groups && data.groups.length ? `${data.groups[row]} ${data.rows[row]}` : data.rows[row];
    const facts = [...names, "rank", "parameters"].map((grid) => cellOf(tower, grid, row, column));
    const state = now.state === "free" ? "untouched" : now.state;
    return [data.name, layer, data.columns[column], unit, ...facts, state, now.round, now.locked, now.strength];
  })];
}

function quoted(cell) {
  const text = cell === null || cell === undefined ? "" : String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

async function copyCsv() {
  const rows = csvRows();
  const text = rows.map((row) => row.map(quoted).join(",")).join("\r\n");
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copyBySelection(text)) return announceCopy("The browser refused");
  }
  return announceCopy(`${rows.length - 1} rows copied`);
}

// Pages that are not on https have no clipboard to write to.
function copyBySelection(text) {
  const before = document.activeElement;
  const area = make("textarea", "visually-hidden");
  area.value = text;
  root.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (before) before.focus({ preventScroll: true });
  return done;
}

function announceCopy(text) {
  say(text);
  copy.textContent = text;
  clearTimeout(copy.timer);
  copy.timer = setTimeout(() => { copy.textContent = "Copy CSV"; }, 2000);
}

// ---------------------------------------------------------------- help

const EDITING = [
  ["Click, Space", "put in or take out"],
  ["Shift-click, drag", "put in a rectangle; take it out where all are in, or with Alt"],
  ["Ctrl-click", "only ever put in"],
  ["Row or column name", "its whole row or column"],
  ["Double-click, I", "only this unit at work; again restores"],
  ["Right-click, B", "ban or lift the ban"],
  ["L", "lock or unlock"],
  ["Shift + arrows", "select a rectangle for Space, B or L"],
];
const READING = [
  ["Arrows, Home, End, Page", "move"],
  ["/", "find units"],
  ["C", "copy as CSV"],
  ["Escape", "let go: selection, isolation, search"],
];

function buildHelp() {
  const box = make("div", "map-help-box");
  const button = pushButton("map-button map-help", "?", () => openHelp(panel.hidden));
  const panel = make("div", "map-help-panel");
  panel.id = `map-help-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  panel.tabIndex = -1;
  panel.hidden = true;
  panel.setAttribute("role", "dialog");
  panel.setAttribute("aria-label", "Keys and gestures of the map");
  button.setAttribute("aria-label", "Keys and gestures");
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-controls", panel.id);
  button.setAttribute("aria-expanded", "false");
  box.append(button, panel);
  box.addEventListener("keydown", closeHelpKey);
  box.addEventListener("focusout", (event) => { if (!box.contains(event.relatedTarget)) openHelp(false); });
  return { box, button, panel };
}

function openHelp(open) {
  if (open === !help.panel.hidden) return;
  help.panel.hidden = !open;
  help.button.setAttribute("aria-expanded", String(open));
  if (!open) return;
  const list = make("dl");
  for (const [keys, what] of value.readonly ? READING : [...EDITING, ...READING]) {
    list.append(make("dt", "", keys), make("dd", "", what));
  }
  help.panel.replaceChildren(make("strong", "", "Keys and gestures"), list);
  help.panel.focus();
}

function closeHelpKey(event) {
  if (event.key !== "Escape" || help.panel.hidden) return;
  event.stopPropagation();
  openHelp(false);
  help.button.focus();
}

// ---------------------------------------------------------------- the card of one unit

const STATE_WORDS = { edited: "in", off: "switched off, change kept", banned: "banned", free: "untouched" };
const tip = make("div", "map-tip");
tip.hidden = true;
let tipped = null;  // { tower, row, column, unit, note } the card describes

function showTip(tower, { row, column, unit }, note = "") {
  tipped = { tower, row, column, unit, note };
  fillTip(tipped);
  tip.hidden = false;
  placeTip(tipped);
}

function place({ tower: { data }, row, column }) {
  const name = data.columns[column];
  const group = data.groups && data.groups.length ? `${data.groups[row]}, ` : "";
  return `${data.title}, ${group}${data.rows[row]}, ${isHead(name) ? `head ${name}` : name}`;
}

function stateWords(now) {
  const words = [STATE_WORDS[now.state]];
  if (now.state === "edited") words.push(now.round === null ? "by hand" : `round ${now.round}`);
  if (now.state === "off" && now.round !== null) words.push(`round ${now.round}`);
  return words.join(", ");
}

function factsOf({ tower, row, column, unit }) {
  const cell = (grid) => cellOf(tower, grid, row, column);
  const facts = measures().map(({ name, title }) => [name, title, number(cell(name))]);
  const [low, high] = [cell("low"), cell("high")];
  const interval = ["", "Interval of phi", `${number(low, 2)} to ${number(high, 2)}`];
  if (low !== null && high !== null) facts.splice(1, 0, interval);
  const counted = (count) => (count === null ? "\u2013" : count.toLocaleString("en"));
  if (cell("rank") !== null) facts.push(["rank", "Rank", `${counted(cell("rank"))} of ${counted(ranked)}`]);
  if (cell("parameters") !== null) facts.push(["", "Parameters", counted(cell("parameters"))]);
  if (cell("unstable")) facts.push(["", "Score", "unstable"]);
  if (cell("open") === false) facts.push(["", "Growth", "not open to it"]);
  return value.readonly ? facts : [...facts, ...editFacts(unit)];
}

function editFacts(unit) {
  const now = stateOf(unit);
  const facts = [["", "State", stateWords(now)]];
  if (now.locked) facts.push(["", "Lock", "locked"]);
  if (now.strength !== 1) facts.push(["", "Strength", `${Math.round(100 * now.strength)}%`]);
  return facts;
}

function fillTip(cell) {
  const list = make("dl");
  for (const [term, label, text] of factsOf(cell)) {
    const name = make("dt", "", label);
    if (term) Object.assign(name, { className: "term" }).dataset.term = term;
    list.append(name, make("dd", "", text));
  }
  tip.replaceChildren(make("strong", "", place(cell)), make("code", "", cell.unit), list);
  if (cell.note) tip.append(make("p", "map-tip-note", cell.note));
}

function scrolled() {
  if (tipped && tipped.tower.byKeys && !tip.hidden) placeTip(tipped);
  else tip.hidden = true;
}

// Below the cell, or above it where the window ends, so that the row being read stays in sight.
function placeTip({ tower, row, column }) {
  const field = tower.field.getBoundingClientRect();
  const below = field.top + tower.tops[row] + tower.h + 10;
  const over = field.top + tower.tops[row] - tip.offsetHeight - 10;
  const left = field.left + tower.lefts[column] + tower.w / 2 - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below + tip.offsetHeight > window.innerHeight && over > 0 ? over : below}px`;
}
