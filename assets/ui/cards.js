// Before and after cards. Everything a person wrote goes in as text, and pictures only from where we serve them.
const root = element.querySelector(".cards");

const SOURCES = ["gradio_api/file=", "data:image/png;base64,", "data:image/webp;base64,"];
const MARKS = {
  "suppressed": { icon: "M3 8.5L6.5 12L13 4.5", good: true },
  "kept": { icon: "M3 8.5L6.5 12L13 4.5", good: true },
  "changed": { icon: "M8 3V9M8 12V13", good: false },
  "still recognised": { icon: "M8 3V9M8 12V13", good: false },
};

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
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

function points(before, after) {
  const change = Math.round(100 * (after - before));
  return change > 0 ? `+${change}` : change < 0 ? `\u2212${-change}` : "0";
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

// ---------------------------------------------------------------- one card

function picture(card) {
  const frame = make("div", "card-picture");
  if (!SOURCES.some((start) => String(card.image).startsWith(start))) return frame;
  const image = make("img");
  image.alt = card.truth ? `${card.title}, truly ${card.truth}` : card.title;
  image.loading = "lazy";
  image.decoding = "async";
  image.src = card.image;
  frame.append(image);
  return frame;
}

function verdict(word) {
  const look = MARKS[word] || { icon: "M4 8H12", good: true };
  const chip = make("span", "verdict");
  chip.dataset.good = String(look.good);
  chip.title = word;
  chip.append(icon(look.icon), make("span", "", word));
  return chip;
}

function track(share, side) {
  const line = make("span", `bar ${side}`);
  const clipped = Math.max(0, Math.min(1, share));
  line.style.width = clipped > 0 ? `max(2px, ${100 * clipped}%)` : "0";
  return line;
}

function bar({ label, before, after }, tagged) {
  const row = make("div", "bar-row");
  if (tagged) row.classList.add("tagged");
  const words = `${label}: ${percent(before)} before, ${percent(after)} after`;
  row.title = words;
  row.setAttribute("role", "img");
  row.setAttribute("aria-label", words);
  const pair = make("span", "bar-pair");
  pair.append(track(before, "original"), track(after, "edited"));
  row.append(make("span", "bar-label", label), pair, make("span", "bar-change", points(before, after)));
  return row;
}

function fullCard(card, kind, forget) {
  const box = make("article", "card");
  const words = make("div", "card-words");
  words.append(make("div", "card-title", card.title));
  if (card.truth) words.append(make("div", "card-truth", `truth: ${card.truth}`));
  const top = make("div", "card-top");
  top.append(picture(card), words);
  const bars = make("div", "card-bars");
  const target = forget === null || forget === undefined ? (kind === "forget" ? card.truth : null) : forget;
  for (const one of card.bars) bars.append(bar(one, target !== null && one.label === target));
  box.append(top, ...(card.verdict ? [verdict(card.verdict)] : []), bars);
  return box;
}

function tile(card) {
  const box = make("figure", "card-tile");
  box.append(picture(card));
  if (card.verdict) box.append(verdict(card.verdict));
  else if (card.title) box.append(make("figcaption", "", card.title));
  box.title = card.title || "";
  return box;
}

// ---------------------------------------------------------------- groups

function group(data, forget) {
  const box = make("section", "card-group");
  box.dataset.kind = data.kind;
  const head = make("div", "card-group-head");
  head.append(make("h3", "", data.title), make("span", "card-count", String(data.cards.length)));
  if (data.note) head.append(make("p", "", data.note));
  const plain = data.cards.every((card) => !card.bars || !card.bars.length);
  const grid = make("div", plain ? "card-grid tiles-grid" : "card-grid");
  for (const card of data.cards) {
    grid.append(card.bars && card.bars.length ? fullCard(card, data.kind, forget) : tile(card));
  }
  box.append(head, grid);
  return box;
}

function legend(names) {
  const line = make("div", "card-legend");
  for (const [i, side] of ["original", "edited"].entries()) {
    const entry = make("span", "card-legend-entry");
    entry.append(make("span", `swatch ${side}`), make("span", "", names[i]));
    line.append(entry);
  }
  const tag = make("span", "card-legend-entry");
  tag.append(make("span", "swatch forget"), make("span", "", "class to forget"));
  const help = "bars run from 0 to 100 %; the number is the change in percentage points";
  line.append(tag, make("span", "card-legend-help", help));
  return line;
}

function emptyState(words) {
  const box = make("div", "empty-state");
  const next = words || "Run the edit to compare before and after.";
  box.append(make("strong", "", "Nothing to show yet"), make("p", "", next));
  return box;
}

function draw() {
  const value = props.value || {};
  const groups = (value.groups || []).filter((data) => data.cards && data.cards.length);
  const parts = [];
  if (value.finding) parts.push(make("p", "finding", value.finding));
  if (groups.some((data) => data.cards.some((card) => card.bars && card.bars.length))) parts.push(legend(value.sides));
  parts.push(...groups.map((data) => group(data, value.forget_label)));
  root.replaceChildren(...(groups.length ? parts : [emptyState(value.empty)]));
  root.dataset.cards = String(groups.reduce((sum, data) => sum + data.cards.length, 0));
  root.dataset.ready = "true";
}

watch("value", draw);
draw();
