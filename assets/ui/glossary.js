// Explains terms on hover, focus and touch: those marked in our own HTML, and Gradio's labels that are terms.
const LABELS = "[data-testid='block-info'], label span, th, th span, .tile-label";
const ENDINGS = /\s*(\([^)]*\)|,.*|at most|at least|per round|:|%)$/;
const SHOW_AFTER = 250;  // ms of hovering
const HIDE_AFTER = 120;  // ms to reach the card with the pointer
const GAP = 8;  // px between the word and the card

// ---------------------------------------------------------------- the card

const card = document.createElement("div");
const title = document.createElement("strong");
const words = document.createElement("p");
card.id = "razor-glossary";
card.className = "term-card";
card.setAttribute("role", "tooltip");
card.hidden = true;
card.append(title, words);

let explained = null;  // the element the card describes
let described = null;  // what described that element before
let timer = null;

function show(target) {
  clearTimeout(timer);
  const entry = TERMS[target.dataset.term];
  if (!entry || !target.isConnected || target === explained) return;
  hide();
  [title.textContent, words.textContent] = entry;
  if (!card.isConnected) document.body.append(card);
  card.hidden = false;
  explained = target;
  described = target.getAttribute("aria-describedby");
  target.setAttribute("aria-describedby", [described, card.id].filter(Boolean).join(" "));
  place(target.getBoundingClientRect());
}

function hide() {
  clearTimeout(timer);
  if (!explained) return;
  card.hidden = true;
  if (described === null) explained.removeAttribute("aria-describedby");
  else explained.setAttribute("aria-describedby", described);
  explained = null;
}

// Below the word, or above it where the window ends.
function place(word) {
  const widest = document.documentElement.clientWidth - card.offsetWidth - GAP;
  const below = word.bottom + GAP;
  const above = word.top - card.offsetHeight - GAP;
  card.style.left = `${Math.max(GAP, Math.min(word.left, widest))}px`;
  card.style.top = `${below + card.offsetHeight > window.innerHeight && above > 0 ? above : below}px`;
}

function later(act, delay) {
  clearTimeout(timer);
  timer = setTimeout(act, delay);
}

// ---------------------------------------------------------------- hover, focus, touch

function termAt(event) {
  const target = event.target instanceof Element ? event.target.closest("[data-term]") : null;
  if (target && found.has(target) && termOf(target) !== target.dataset.term) unmark(target);
  return target && target.dataset.term ? target : null;
}

document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "touch") return;
  const target = termAt(event);
  if (target && target !== explained) later(() => show(target), SHOW_AFTER);
  else if (target || card.contains(event.target)) clearTimeout(timer);
});
document.addEventListener("pointerout", (event) => {
  if (event.pointerType !== "touch" && (explained || termAt(event))) later(hide, HIDE_AFTER);
});
document.addEventListener("focusin", (event) => {
  const target = termAt(event);
  if (target && target.matches(":focus-visible")) later(() => show(target), SHOW_AFTER);
});
document.addEventListener("focusout", (event) => {
  if (termAt(event)) hide();
});
document.addEventListener("pointerup", (event) => {
  if (event.pointerType !== "touch") return;
  const target = termAt(event);
  if (target) show(target);
  else if (!card.contains(event.target)) hide();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
}, true);
// A card about to come is placed when it comes; only one that shows would be left behind.
document.addEventListener("scroll", () => { if (explained) hide(); }, { capture: true, passive: true });

// ---------------------------------------------------------------- Gradio's own labels

const found = new WeakSet();  // labels marked here, not in our HTML
const waiting = new Set();  // added elements not looked through yet

function termOf(element) {
  let text = element.textContent.trim().toLowerCase();
  if (text.length > 40) return null;
  for (;;) {
    const known = Object.hasOwn(TERMS, text) ? text : Object.hasOwn(ALIASES, text) ? ALIASES[text] : null;
    const shorter = text.replace(ENDINGS, "").trim();
    if (known || shorter === text || !shorter) return known;
    text = shorter;
  }
}

// Attributes and classes only: the elements belong to Gradio, and a label's focus belongs to its input.
function mark(element) {
  if (element.dataset.term || element.querySelector("[data-term], input, select, textarea")) return;
  const name = termOf(element);
  if (!name) return;
  element.dataset.term = name;
  element.classList.add("term");
  found.add(element);
}

function unmark(element) {
  delete element.dataset.term;
  element.classList.remove("term");
  found.delete(element);
}

// A column's name lies deep in its cell, beside buttons; the innermost element with just that text is marked.
function innermost(element) {
  const text = element.textContent.trim();
  const inner = [...element.children].find((child) => child.textContent.trim() === text);
  return inner ? innermost(inner) : element;
}

function look() {
  for (const element of waiting) {
    if (!element.isConnected) continue;
    if (element.matches(LABELS)) mark(innermost(element));
    for (const label of element.querySelectorAll(LABELS)) mark(innermost(label));
  }
  waiting.clear();
}

new MutationObserver((changes) => {
  const before = waiting.size;
  for (const { addedNodes } of changes) {
    for (const node of addedNodes) if (node instanceof HTMLElement && node !== card) waiting.add(node);
  }
  if (!before && waiting.size) requestAnimationFrame(look);
}).observe(document.documentElement, { childList: true, subtree: true });
waiting.add(document.documentElement);
requestAnimationFrame(look);
