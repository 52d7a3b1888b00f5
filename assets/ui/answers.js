// Answers about pictures before and after an edit. Everything a person or a model wrote goes in as text, and pictures
// only from where we serve them. A card that says the same as before keeps its elements, so that the focus and what is
// unfolded outlive a stream of new values.
const root = element.querySelector(".answers");

const SIDES = ["before", "after"];
const SOURCES = ["gradio_api/file=", "data:image/png;base64,", "data:image/webp;base64,"];
const TICK = "M3 8.5L6.5 12L13 4.5";
const ALARM = "M8 3V9M8 12V13";
const DASH = "M4 8H12";
const MARKS = {
  "suppressed": { icon: TICK, good: true },
  "still named": { icon: ALARM, good: false },
  "not named before either": { icon: DASH, good: true },
  "kept": { icon: TICK, good: true },
  "changed": { icon: ALARM, good: false },
  "names it": { icon: ALARM, good: false },
};
const ABOUT_THE_NAME = ["forget", "paraphrase", "check"];  // kinds of groups whose cards show every token of it
const LEFT_END = -20;  // nats
const LEAST = -1000;  // nats, as in answer_cards.py: stands for minus infinity
const PENDING = "not answered yet";

const finding = make("p", "finding");
const progress = buildProgress();
const legend = make("div", "card-legend");
const groupsBox = make("div", "answer-groups");
const empty = make("div", "empty-state");
const emptyWords = make("p");
let names = [];  // of the sides
let theName = "";
let shownGroups = [];
let refocused = null;  // a new element that stands for the one that had the focus

empty.append(make("strong", "", "Nothing to show yet"), emptyWords);

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Writes only what differs: screen readers and selections notice a text that is set again.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function icon(d) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", d);
  svg.append(path);
  return svg;
}

// Puts the children in this order without taking out those already in place: a node that is moved loses the focus.
function arrange(parent, children) {
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, i) => {
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
  });
}

function dot(side) {
  const mark = make("span", "answer-dot");
  mark.dataset.side = side;
  return mark;
}

function percent(nats) {
  const share = 100 * Math.exp(nats);
  if (nats <= LEAST) return "0 %";
  if (share < 0.001) return "<0.001 %";
  return `${share < 9.95 ? Number(share.toPrecision(share < 1 ? 1 : 2)) : Math.round(share)} %`;
}

function logProbability(nats) {
  if (nats <= LEAST) return "\u2212\u221e";
  const text = nats.toFixed(1);
  return Number(text) === 0 ? "0.0" : text.replace("-", "\u2212");
}

function fromTo([before, after], said) {
  return [before, after].map((value) => (value === null ? "\u2026" : said(value))).join(" \u2192 ");
}

function spoken(values) {
  return values.map((value, i) => {
    const said = value === null ? PENDING : `${percent(value)}, log p ${logProbability(value)}`;
    return `${names[i]} ${said}`;
  }).join("; ");
}

// ---------------------------------------------------------------- progress

function buildProgress() {
  const box = make("div", "pairs-progress");
  const track = make("div", "pairs-track");
  const words = make("span");
  track.setAttribute("role", "progressbar");
  track.setAttribute("aria-label", "Questions answered");
  track.setAttribute("aria-valuemin", "0");
  track.append(make("span"));
  box.append(track, words);
  return { box, track, words };
}

function fillProgress(now) {
  progress.track.setAttribute("aria-valuemax", String(now.total));
  progress.track.setAttribute("aria-valuenow", String(now.done));
  progress.track.style.setProperty("--done", `${now.total ? (100 * now.done) / now.total : 0}%`);
  write(progress.words, [`${now.done} of ${now.total} answered`, now.note].filter(Boolean).join(", "));
}

// ---------------------------------------------------------------- one card: the answers

function picture(data) {
  const frame = make("div", "card-picture");
  if (!SOURCES.some((start) => data.image.startsWith(start))) return frame;
  const image = make("img");
  image.alt = data.right.length ? `picture, truly ${data.right[0]}` : "picture";
  image.loading = "lazy";
  image.decoding = "async";
  image.src = data.image;
  frame.append(image);
  return frame;
}

function verdict(word) {
  const look = MARKS[word];
  const chip = make("span", "verdict");
  chip.dataset.good = String(look.good);
  chip.append(icon(look.icon), make("span", "", word));
  return chip;
}

function top(data) {
  const box = make("div", "card-top");
  const words = make("div", "card-words");
  const question = make("p", "answer-question", data.question);
  question.title = data.question;
  words.append(question);
  if (data.right.length) {
    const right = make("div", "card-truth", `right: ${[...new Set(data.right)].join(" or ")}`);
    right.title = right.textContent;
    words.append(right);
  }
  if (data.verdict) words.append(verdict(data.verdict));
  box.append(picture(data), words);
  return box;
}

// What one side said, marked where the other said something else.
function said(data, side) {
  const box = make("div", "answer-said");
  const text = data[side];
  if (!text) {
    box.append(make("em", "", text === null ? PENDING : "no words"));
    return box;
  }
  const [own, tag] = side === "before" ? ["gone", "del"] : ["new", "ins"];
  const pieces = data.difference.filter(([kind]) => kind === "same" || kind === own);
  if (data.before === null || data.after === null || !pieces.length) {
    box.textContent = text;
    return box;
  }
  pieces.forEach(([kind, words], i) => {
    if (i) box.append(" ");
    box.append(kind === own ? make(tag, "", words) : words);
  });
  return box;
}

function line(data, i) {
  const side = SIDES[i];
  const box = make("div", "answer-line");
  const label = make("span", "answer-side");
  const words = make("div", "answer-words");
  label.title = names[i];
  label.append(dot(side), make("span", "", names[i]));
  words.append(said(data, side));
  if (data.flags[i].length) {
    const flags = make("ul", "answer-flags");
    flags.append(...data.flags[i].map((flag) => make("li", "", flag)));
    words.append(flags);
  }
  box.append(label, words);
  return box;
}

// ---------------------------------------------------------------- one card: how likely the name is

function place(nats) {
  return 100 * (1 - Math.max(LEFT_END, nats) / LEFT_END);  // percent of the axis
}

function tokenRow(data) {
  const values = SIDES.map((side) => data[side]);
  const token = data.token.trim() || "\u2423";
  const row = make("div", "token-row");
  const track = make("span", "token-track");
  const known = values.filter((value) => value !== null).map(place);
  if (known.length === 2) {
    const span = make("span", "token-span");
    span.style.left = `${Math.min(...known)}%`;
    span.style.width = `${Math.abs(known[0] - known[1])}%`;
    track.append(span);
  }
  SIDES.forEach((side, i) => {
    if (values[i] === null) return;
    const mark = dot(side);
    mark.style.left = `${place(values[i])}%`;
    track.append(mark);
  });
  row.setAttribute("role", "img");
  row.setAttribute("aria-label", `${token}: ${spoken(values)}`);
  row.title = `${token}: ${spoken(values)}`;
  row.append(make("span", "token-label", token), track, make("span", "token-share", fromTo(values, percent)));
  return row;
}

function axis() {
  const row = make("div", "token-row token-axis");
  const ticks = make("span", "token-ticks");
  row.setAttribute("aria-hidden", "true");
  for (const nats of [LEFT_END, LEFT_END / 2, 0]) {
    const tick = make("span", "", `${nats === LEFT_END ? "\u2264 " : ""}${nats}`.replace("-", "\u2212"));
    tick.style.left = `${place(nats)}%`;
    ticks.append(tick);
  }
  row.append(make("span", "", "log p"), ticks);
  return row;
}

function chart(tokens, folded) {
  const box = make(folded ? "details" : "div", "answer-name");
  const head = make(folded ? "summary" : "div", "answer-total");
  const whole = SIDES.map((side) =>
    tokens.some((token) => token[side] === null) ? null : tokens.reduce((sum, token) => sum + token[side], 0));
  const label = make("span", "answer-total-label", nameAsAnswer());
  label.title = label.textContent;
  head.title = spoken(whole);
  head.append(label, make("span", "answer-total-number", `log p ${fromTo(whole, logProbability)}`));
  box.append(head, ...tokens.map(tokenRow), axis());
  return box;
}

function nameAsAnswer() {
  return theName ? `\u201c${theName}\u201d as the answer` : "the name as the answer";
}

// ---------------------------------------------------------------- cards and groups

function card(data, folded, old) {
  const told = JSON.stringify([data, folded, names, theName]);
  if (old && old.told === told) return old;
  const box = make("li", "card answer-card");
  box.append(top(data), ...SIDES.map((_, i) => line(data, i)));
  if (data.tokens.length) box.append(chart(data.tokens, folded));
  const made = { told, box, asked: `${data.question}\n${data.image}`, fold: box.querySelector("details") };
  if (old && old.asked === made.asked && old.fold && made.fold) {
    made.fold.open = old.fold.open;
    if (old.fold.contains(document.activeElement)) refocused = made.fold.firstChild;
  }
  return made;
}

function buildGroup() {
  const box = make("section", "card-group");
  const head = make("div", "card-group-head");
  const [title, tally, note] = [make("h3"), make("span", "card-count"), make("p")];
  const grid = make("ul", "answer-grid");
  head.append(title, tally, note);
  box.append(head, grid);
  return { box, title, tally, note, grid, cards: [] };
}

function fillGroup(group, data) {
  const folded = !ABOUT_THE_NAME.includes(data.kind);
  group.box.dataset.kind = data.kind;
  write(group.title, data.title);
  write(group.tally, tallyOf(data.answers));
  write(group.note, data.note);
  group.cards = data.answers.map((answer, i) => card(answer, folded, group.cards[i]));
  arrange(group.grid, group.cards.map(({ box }) => box));
}

function tallyOf(answers) {
  const counts = Object.keys(MARKS).map((word) => [answers.filter(({ verdict }) => verdict === word).length, word]);
  const told = counts.filter(([count]) => count).map(([count, word]) => `${count} ${word}`);
  return [answers.length === 1 ? "1 question" : `${answers.length} questions`, ...told].join(", ");
}

// ---------------------------------------------------------------- drawing

function fillLegend(charted) {
  const entries = SIDES.map((side, i) => [dot(side), make("span", "", names[i])]);
  entries.push([make("del", "", "gone words")], [make("ins", "", "new words")]);
  legend.replaceChildren(...entries.map((parts) => {
    const entry = make("span", "card-legend-entry");
    entry.append(...parts);
    return entry;
  }));
  if (!charted) return;
  const help = `dots show log p of each token of ${nameAsAnswer()}: 0 is certain, 2.3 less is ten times less likely`;
  legend.append(make("span", "card-legend-help", help));
}

function draw() {
  const value = props.value || {};
  const groups = (value.groups || []).filter((data) => data.answers.length);
  names = value.sides || [];
  theName = value.name || "";
  write(finding, value.finding || "");
  write(emptyWords, value.empty || "");
  if (value.progress) fillProgress(value.progress);
  fillLegend(groups.some((data) => data.answers.some(({ tokens }) => tokens.length)));
  shownGroups = groups.map((_, i) => shownGroups[i] || buildGroup());
  groups.forEach((data, i) => fillGroup(shownGroups[i], data));
  arrange(groupsBox, shownGroups.map(({ box }) => box));
  const above = [value.finding && finding, value.progress && progress.box].filter(Boolean);
  arrange(root, [...above, ...(groups.length ? [legend, groupsBox] : [empty])]);
  if (refocused) refocused.focus({ preventScroll: true });
  refocused = null;
  root.dataset.answers = String(groups.reduce((sum, data) => sum + data.answers.length, 0));
  root.dataset.ready = "true";
}

watch("value", draw);
draw();
