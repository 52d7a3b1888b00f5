// The four ways to look at pairs, one for all pairs at once: the switch, the wipe, the flip, and what is remembered.
const VIEWS = [["side", "Side by side"], ["wipe", "Wipe"], ["flip", "Flip"], ["difference", "Difference"]];
const HOLD = 180;  // ms after which a press is a look at the other side and no click
const DRAG = 4;  // px from which a press is a drag and no click
const STEPS = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100,
  End: 100 };
const MEMORY = `razor-pairs-${element.closest(".block")?.id || ""}`;

const state = { view: "side", wipe: 50, side: 0, held: false, names: ["original", "edited"], forget: null,
  judged: "", ...recall() };

// A page may be barred from storing anything; then the choice lasts as long as the page.
function recall() {
  try {
    const { view, wipe } = JSON.parse(sessionStorage.getItem(MEMORY)) || {};
    const known = VIEWS.some(([name]) => name === view) && wipe >= 0 && wipe <= 100;
    return known ? { view, wipe } : {};
  } catch {
    return {};
  }
}

function remember() {
  try {
    sessionStorage.setItem(MEMORY, JSON.stringify({ view: state.view, wipe: state.wipe }));
  } catch {
    // nothing to be done
  }
}

// ---------------------------------------------------------------- the switch

const HELP = {
  side: "Click a picture to enlarge it.",
  wipe: "Drag across any picture, or use the arrow keys on a line; all lines move together.",
  flip: "Press F, or hold a picture down, to swap all of them.",
  difference: "What differs, twice as bright; black has not changed.",
};
const MARKED = "Bold is what to forget.";

const bar = make("div", "pairs-bar");
const switcher = make("div", "pairs-switch");
const swap = pushButton("pair-button", "", () => flip(1 - state.side));
const shownSide = make("span", "pairs-shown");
const legend = make("div", "pairs-legend");
const help = make("p", "pairs-help");

function buildBar() {
  const name = uniqueId("pairs-view");
  switcher.setAttribute("role", "radiogroup");
  switcher.setAttribute("aria-label", "View");
  switcher.append(...VIEWS.map(([view, title]) => {
    const label = make("label");
    const radio = make("input");
    Object.assign(radio, { type: "radio", name, value: view, checked: view === state.view });
    radio.addEventListener("change", () => lookBy(view));
    label.append(radio, make("span", "", title));
    return label;
  }));
  swap.setAttribute("aria-keyshortcuts", "F");
  shownSide.setAttribute("aria-live", "polite");
  legend.append(...SIDES.map((side) => {
    const entry = make("span");
    entry.dataset.side = side;
    return entry;
  }));
  bar.append(switcher, swap, shownSide, legend, help);
}

function lookBy(view) {
  state.view = view;
  remember();
  drawView();
}

function drawView() {
  root.dataset.view = state.view;
  root.dataset.side = SIDES[shownNow()];
  swap.hidden = shownSide.hidden = state.view !== "flip";
  const [now, other] = [state.names[shownNow()], state.names[1 - shownNow()]];
  write(shownSide, `${now} shown`);
  write(swap, `Show ${other} (F)`);
  [...legend.children].forEach((entry, i) => write(entry, state.names[i]));
  const words = [HELP[state.view], state.judged, state.judged && state.forget && MARKED];
  write(help, words.filter(Boolean).join(" "));
  drawWipe();
  for (const { difference } of shownPairs.values()) queueDifference(difference);
}

// ---------------------------------------------------------------- wipe

function wipeTo(percent) {
  state.wipe = Math.max(0, Math.min(100, percent));
  drawWipe();
}

function drawWipe() {
  root.style.setProperty("--wipe", `${state.wipe}%`);
  for (const { divider } of shownPairs.values()) {
    divider.setAttribute("aria-valuenow", String(Math.round(state.wipe)));
    divider.setAttribute("aria-valuetext", `${Math.round(state.wipe)} % ${state.names[0]}`);
  }
}

function nudge(event) {
  const step = STEPS[event.key];
  if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  wipeTo(state.wipe + step);
  remember();
}

// ---------------------------------------------------------------- flip

function shownNow() {
  return state.held ? 1 - state.side : state.side;
}

function flip(side) {
  state.side = side;
  drawView();
}

function flipKey(event) {
  const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
  if (state.view !== "flip" || !plain || event.repeat || event.key.toLowerCase() !== "f" || large.box.open) return;
  event.preventDefault();
  flip(1 - state.side);
}

// ---------------------------------------------------------------- presses

let press = null;  // { id, frame, x, moved, timer } of the pointer that is down
let spent = false;  // the press was a drag or a hold, so the click that ends it opens nothing

function down(event, frame) {
  if (event.button !== 0 || press) return;
  spent = false;
  press = { id: event.pointerId, frame, x: event.clientX, moved: false, timer: null };
  if (state.view === "flip") press.timer = setTimeout(hold, HOLD);
}

function move(event, frame) {
  if (!press || press.id !== event.pointerId || press.frame !== frame || state.view !== "wipe") return;
  if (!press.moved && Math.abs(event.clientX - press.x) < DRAG) return;
  if (!press.moved) frame.setPointerCapture(event.pointerId);
  press.moved = spent = true;
  const { left, width } = frame.getBoundingClientRect();
  wipeTo((100 * (event.clientX - left)) / width);
}

function hold() {
  state.held = spent = true;
  drawView();
}

function up(event) {
  if (!press || press.id !== event.pointerId) return;
  if (press.moved) remember();
  clearTimeout(press.timer);
  press = null;
  if (state.held) {
    state.held = false;
    drawView();
  }
}

function listenToFrame(frame, divider) {
  frame.addEventListener("pointerdown", (event) => down(event, frame));
  frame.addEventListener("pointermove", (event) => move(event, frame));
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) frame.addEventListener(end, up);
  // A finger is captured by what it touched first, and loses that when the frame takes it over.
  frame.addEventListener("lostpointercapture", (event) => { if (event.target === frame) up(event); });
  frame.addEventListener("contextmenu", (event) => { if (state.held) event.preventDefault(); });  // a long touch
  frame.addEventListener("click", (event) => {
    if (!spent || event.detail === 0) return;  // 0: a key, not a pointer
    spent = false;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  divider.addEventListener("keydown", nudge);
}
