// The rounds of the branch shown: a scrubber over them, a chip each, and the current one in detail.
const scrubber = make("label", "scrubber");
const scrubberText = make("span", "scrubber-text");
const range = make("input");
const chips = make("div", "round-chips");
const detail = make("section", "round-detail");

range.type = "range";
range.min = "0";
scrubber.append(scrubberText, range);
chips.setAttribute("role", "group");
chips.setAttribute("aria-label", "Growth rounds");
detail.tabIndex = 0;  // it scrolls when a round has many units
detail.setAttribute("aria-label", "The current round in detail");

let dragging = false;
let chipsDrawn = "";
let detailDrawn = "";
let chipScrolledTo = null;

range.addEventListener("pointerdown", () => { dragging = true; });
range.addEventListener("input", () => {
  const node = scene().path[Number(range.value)];
  if (node) pick(node.id);
});
range.addEventListener("change", () => {
  if (dragging) send();
  dragging = false;
});

function drawRounds(now) {
  drawScrubber(now);
  drawChips(now);
  drawDetail(now);
}

function roundName(node) {
  return node.kind === "start" ? "Start" : `Round ${node.index}`;
}

function drawScrubber({ path, at, current }) {
  const last = path.length - 1;
  scrubber.hidden = last < 1;
  scrubberText.textContent = at ? `Round ${at} of ${last}` : `Start, before round 1 of ${last}`;
  range.max = String(last);
  range.value = String(at);
  range.style.setProperty("--done", `${last ? (100 * at) / last : 0}%`);
  range.setAttribute("aria-valuetext", [scrubberText.textContent, current.unit].filter(Boolean).join(", "));
}

// ---------------------------------------------------------------- chips

// The chips are built anew only when what they say changes, so that scrubbing keeps focus and scroll position.
function drawChips(now) {
  const { value, path, at, current } = now;
  const next = JSON.stringify([path, value.forks, value.draft && [value.draft, at]]);
  if (next !== chipsDrawn) {
    chipsDrawn = next;
    const focused = chips.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    chips.replaceChildren(...path.map((node) => chip(node, value.forks[node.id] || [])));
    if (value.draft) chips.children[at].after(draftChip(value.draft));
    if (focused !== null) chipOf(Number(focused))?.focus({ preventScroll: true });
  }
  path.forEach((node, i) => {
    const button = chipOf(node.id);
    button.setAttribute("aria-pressed", String(i === at));
    button.classList.toggle("later", i > at);
  });
  if (chipScrolledTo !== current.id) keepInSight(chipOf(current.id));
  chipScrolledTo = current.id;
}

function chipOf(id) {
  return [...chips.children].find((node) => node.dataset.id === String(id));
}

// Only the row scrolls; scrollIntoView would move the page as well.
function keepInSight(button) {
  const left = button.offsetLeft - chips.offsetLeft;
  const right = left + button.offsetWidth;
  if (left < chips.scrollLeft) chips.scrollLeft = left - 16;
  else if (right > chips.scrollLeft + chips.clientWidth) chips.scrollLeft = right - chips.clientWidth + 16;
}

function chip(node, forks) {
  const state = node.kind === "start" ? "start" : node.accepted ? "accepted" : "rejected";
  const button = press("round-chip", undefined, () => pick(node.id));
  button.dataset.state = state;
  button.dataset.id = String(node.id);
  const top = make("span", "round-top");
  top.append(make("strong", "", roundName(node)));
  if (node.seconds) top.append(make("span", "round-seconds", `${node.seconds.toFixed(1)} s`));
  const word = make("span", "round-word");
  const says = state === "start" ? "unedited" : state;
  word.append(icon(state), make("span", "", says), make("span", "round-later", "later"));
  button.append(top, make("span", "round-unit", node.unit || (state === "start" ? node.note : node.by_hand || "no unit")), word);
  const note = state === "rejected" ? node.reason || node.note : state === "start" ? "" : node.note;
  if (note) button.append(make("span", "round-note", note));
  if (node.by_hand) button.append(sign("hand", "changed by hand before"));
  if (forks.length) button.append(sign("fork", `${forks.length === 1 ? "branch" : "branches"}: ${forks.join(", ")}`));
  button.title = [node.unit, node.reason || node.note, node.by_hand].filter(Boolean).join("\n");
  return button;
}

function sign(name, words) {
  const line = make("span", `round-sign ${name}`);
  line.append(icon(name), make("span", "", words));
  return line;
}

function draftChip(draft) {
  const box = make("div", "round-chip draft");
  const top = make("span", "round-top");
  top.append(make("strong", "", "By hand"));
  const word = make("span", "round-word");
  word.append(icon("hand"), make("span", "", draft.busy ? "measuring\u2026" : "not grown yet"));
  box.append(top, make("span", "round-note", draft.text), word);
  box.title = draft.text;
  box.setAttribute("role", "status");
  return box;
}

// ---------------------------------------------------------------- the current round in detail

function drawDetail({ current }) {
  const next = JSON.stringify(current);
  if (next === detailDrawn) return;
  detailDrawn = next;
  const head = make("div", "detail-head");
  head.append(make("h3", "", roundName(current)));
  if (current.seconds) head.append(make("span", "detail-seconds", `${current.seconds.toFixed(1)} s`));
  const parts = [head];
  if (current.reason || current.note) parts.push(make("p", "", current.reason || current.note));
  if (current.won) parts.push(make("p", "detail-won", current.won));
  if (current.by_hand) parts.push(sign("hand", `Changed by hand before: ${current.by_hand}`));
  if (current.added.length) parts.push(unitTable(current.added));
  if (current.trials.length) parts.push(trialsBlock(current));
  detail.replaceChildren(...parts);
  detail.scrollTop = 0;
}

function significant(value, digits = 3) {
  if (value === null) return "\u2013";
  const size = Math.abs(value);
  const extreme = size && (size < 1e-3 || size >= 1e5);
  const text = extreme ? value.toExponential(digits - 1).replace("e+", "e") : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "\u2212");
}

function unitTable(added) {
  const table = make("table", "razor-table");
  const head = make("tr");
  for (const name of ["unit", "phi", "pressure", "separation", "rank"]) {
    const cell = make("th", name === "unit" ? "" : "number");
    const word = make("span", "term", name);
    word.dataset.term = name;
    cell.scope = "col";
    cell.append(word);
    head.append(cell);
  }
  const rows = added.map((unit) => {
    const row = make("tr");
    row.append(make("td", "unit", unit.unit));
    const scores = ["phi", "pressure", "separation", "rank"];
    row.append(...scores.map((name) => make("td", "number", significant(unit[name]))));
    return row;
  });
  const [top, all] = [make("thead"), make("tbody")];
  top.append(head);
  all.append(...rows);
  table.append(make("caption", "", added.length === 1 ? "The unit that joined" : "The units that joined"), top, all);
  return table;
}

function trialsBlock({ trials, chosen }) {
  const box = make("div", "detail-trials");
  const taken = trials.find((trial) => trial.step === chosen);
  const words = taken
    ? `Step ${chosen} of ${trials.length} tried was taken, length ${significant(taken.length)}`
    : `${trials.length} ${trials.length === 1 ? "step was" : "steps were"} tried, none taken`;
  box.append(make("p", "", words), trialsPicture(trials, chosen, words));
  return box;
}

// A small picture of the steps: forget and retain accuracy after each, a ring on the one taken.
const PICTURE = { width: 344, height: 92, left: 8, right: 260, top: 10, bottom: 68 };

function trialsPicture(trials, chosen, words) {
  const { width, height, left, right, top, bottom } = PICTURE;
  const taken = trials.findIndex((trial) => trial.step === chosen);
  const lines = ["forget", "retain"].map((name) => trialLine(trials, name, taken)).filter(Boolean);
  const ends = lines.map(({ label }) => label.text).join(", ");
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "trials", role: "img",
    "aria-label": `${words}. After the last step: ${ends}.` });
  for (const y of [top, bottom]) picture.append(svg("line", { x1: left, x2: right, y1: y, y2: y, class: "grid" }));
  const x = trialX(trials, taken);
  if (taken >= 0) picture.append(svg("line", { x1: x, x2: x, y1: top, y2: bottom, class: "taken" }));
  apart(lines.map(({ label }) => label), 14, bottom);
  for (const { marks, label } of lines) {
    picture.append(...marks, svg("text", { x: right + 10, y: label.y + 4, class: label.name }, label.text));
  }
  picture.append(svg("text", { x: left, y: height - 6 }, "step 1"));
  const last = String(trials.at(-1).step);
  if (trials.length > 1) picture.append(svg("text", { x: right, y: height - 6, "text-anchor": "end" }, last));
  return picture;
}

function trialX(trials, i) {
  const { left, right } = PICTURE;
  return trials.length > 1 ? left + (i * (right - left)) / (trials.length - 1) : (left + right) / 2;
}

function trialLine(trials, name, taken) {
  const { top, bottom } = PICTURE;
  const known = trials.map((trial, i) => [trial[name], i]).filter(([share]) => share !== null);
  if (!known.length) return null;
  const dots = known.map(([share, i]) => ({ cx: trialX(trials, i), cy: top + (1 - share) * (bottom - top), i }));
  const line = svg("polyline", { points: dots.map(({ cx, cy }) => `${cx},${cy}`).join(" "), class: name });
  const circles = dots.map(({ cx, cy, i }) => {
    const ring = i === taken;
    return svg("circle", { cx, cy, r: ring ? 4.5 : 2, class: ring ? `${name} ring` : name });
  });
  const text = `${name} ${percent(known.at(-1)[0])} %`;
  return { marks: [line, ...circles], label: { name, y: dots.at(-1).cy, text } };
}
