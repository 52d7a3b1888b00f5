// What pairs and sheets are made of. Everything a person wrote goes in as text, and pictures only from where we serve
// them.
const SIDES = ["before", "after"];
const SOURCES = ["gradio_api/file=", "data:image/png;base64,", "data:image/webp;base64,"];
const TICK = "M3 8.5L6.5 12L13 4.5";
const ALARM = "M8 3V9M8 12V13";
// The hue says which concern a verdict is about; the mark and a filled chip say that it is bad news.
const VERDICTS = {
  "suppressed": { icon: TICK, good: true, kind: "forget" },
  "still drawn": { icon: ALARM, good: false, kind: "forget" },
  "kept": { icon: TICK, good: true, kind: "retain" },
  "changed": { icon: ALARM, good: false, kind: "neighbour" },
};

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

function uniqueId(name) {
  return `${name}-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
}

function safe(url) {
  return url && SOURCES.some((start) => url.startsWith(start)) ? url : null;
}

// Puts the children in this order without taking out those already in place: a node that is moved loses the focus and
// the pointer it holds.
function arrange(parent, children) {
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, i) => {
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
  });
}

// ---------------------------------------------------------------- one picture

function buildPicture(side) {
  const box = make("span", "pair-picture");
  if (side) box.dataset.side = side;
  const image = make("img");
  const blank = make("span", "pair-blank", "not drawn yet");
  image.decoding = "async";
  image.loading = "lazy";
  image.draggable = false;
  box.append(image, blank);
  return { box, image, blank };
}

function fillPicture({ image, blank }, url, words) {
  const shown = safe(url);
  image.hidden = !shown;
  blank.hidden = Boolean(shown);
  image.alt = words;
  if (!shown) image.removeAttribute("src");
  else if (image.getAttribute("src") !== shown) image.src = shown;
}

// The file itself, never a copy from a canvas: its text chunk says how it was drawn.
function fillDownload(link, url, name) {
  const shown = safe(url);
  link.hidden = !shown;
  if (!shown) return;
  link.href = shown;
  link.download = name + (/^data:image\/webp|\.webp$/i.test(shown) ? ".webp" : ".png");
}

// ---------------------------------------------------------------- what was seen, and what it means

function buildSeen(side) {
  const box = make("span", "pair-saw");
  box.dataset.side = side;
  const swatch = make("span", "pair-swatch");
  swatch.setAttribute("aria-hidden", "true");
  const name = make("span", "pair-side");
  const words = make("span", "pair-words");
  box.append(swatch, name, words);
  return { box, name, words };
}

function fillSeen({ box, name, words }, side, saw, forget) {
  write(name, side);
  name.title = side;
  box.classList.toggle("unseen", !saw);
  const key = JSON.stringify([saw, forget]);
  if (words.dataset.key === key) return;
  words.dataset.key = key;
  words.replaceChildren(...saw.split(", ").filter(Boolean).flatMap((word, i) => {
    const part = word === forget ? make("strong", "", word) : document.createTextNode(word);
    return i ? [document.createTextNode(", "), part] : [part];
  }));
}

function fillVerdict(chip, word) {
  const look = VERDICTS[word];
  chip.hidden = !look;
  if (!look || chip.dataset.word === word) return;
  chip.dataset.word = word;
  chip.dataset.kind = look.kind;
  chip.dataset.good = String(look.good);
  chip.replaceChildren(icon(look.icon), make("span", "", word));
}
