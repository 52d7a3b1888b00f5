// The threshold: phi of every unit open to growth, lowest first, and a line to drag where growth stops taking.

const HIGHEST_TAU = 0.999;
const TAU_EVERY = 100;  // ms between two reports while the line moves
const BRUSH_HEIGHT = 48;
const brush = buildBrush();

function buildBrush() {
  const box = make("div", "map-brush");
  const head = make("div", "map-brush-head");
  const [term, text] = [make("span", "term", "tau"), make("span", "map-brush-text")];
  const chart = make("div", "map-brush-chart");
  const canvas = make("canvas");
  const slider = make("div", "map-brush-line");
  term.dataset.term = "tau";
  canvas.setAttribute("aria-hidden", "true");
  slider.tabIndex = 0;
  const named = { role: "slider", "aria-label": "tau, the threshold of growth", "aria-orientation": "horizontal",
    "aria-valuemin": 0, "aria-valuemax": HIGHEST_TAU };
  for (const [name, fact] of Object.entries(named)) slider.setAttribute(name, fact);
  head.append(term, text);
  chart.append(canvas, slider);
  box.append(head, chart, make("div", "map-brush-axis", "units open to growth, lowest phi to highest"));
  chart.addEventListener("pointerdown", grab);
  chart.addEventListener("pointermove", (event) => { if (chart.hasPointerCapture(event.pointerId)) pull(event); });
  chart.addEventListener("pointerup", settle);
  chart.addEventListener("lostpointercapture", settle);
  slider.addEventListener("keydown", nudge);
  return { box, text, chart, canvas, slider };
}

let tau = 0;
let tauSeq = 0;
let tauSent = [];  // reported since the line was last told where to be
let tauReported = -Infinity;  // when
let tauHeld = null;  // timer of the next report
let tauUnsent = false;
let tauTold = null;  // the last one Python asked for

function openScores() {
  const open = cells.filter(({ tower, row, column }) => cellOf(tower, "open", row, column) !== false);
  return open.map(({ tower, row, column }) => cellOf(tower, "phi", row, column)).filter((phi) => phi !== null)
    .sort((a, b) => a - b);
}

// Index of the unit at the threshold, which is itself not above it: the same rule as growth's.
function bound(scores) {
  return tau > 0 ? Math.min(Math.floor(tau * scores.length), scores.length - 1) : -1;
}

function above(scores) {
  const at = bound(scores);
  return at < 0 ? scores.length : scores.filter((phi) => phi > scores[at]).length;
}

function drawBrush() {
  const scores = openScores();
  brush.box.hidden = value.readonly || value.tau === null || value.tau === undefined || !scores.length;
  if (brush.box.hidden) return;
  const count = above(scores);
  const words = `tau ${tau.toFixed(2)}: ${count} of ${scores.length} units above`;
  brush.text.textContent = `${tau.toFixed(2)}: ${count} of ${scores.length} units above`;
  brush.slider.setAttribute("aria-valuenow", tau);
  brush.slider.setAttribute("aria-valuetext", words);
  brush.slider.style.left = `${100 * tau}%`;
  paintBrush(scores, count);
}

function paintBrush(scores, count) {
  const width = brush.chart.clientWidth;
  const pen = canvasOf(brush.canvas, width, BRUSH_HEIGHT);
  const style = getComputedStyle(brush.box);
  const [over, under] = ["--bar-above", "--bar-below"].map((name) => style.getPropertyValue(name));
  const [low, high] = (value.domain || {}).phi || [0, 1];
  const each = width / scores.length;
  const gap = each >= 4 ? 1 : 0;
  scores.forEach((phi, i) => {
    const share = phi > 0 ? Math.max(0, Math.min(1, (Math.log10(phi) - low) / (high - low))) : 0;
    const tall = 3 + share * (BRUSH_HEIGHT - 5);
    pen.fillStyle = i >= scores.length - count ? over : under;
    pen.fillRect(i * each, BRUSH_HEIGHT - tall, Math.max(1, each - gap), tall);
  });
}

// What Python says counts, except where it was said before it had heard of the line's last move.
function hearTau() {
  const told = (props.value || {}).tau ?? null;
  if (told === null || tauUnsent || brush.chart.classList.contains("held")) return;
  const older = told === tauTold || tauSent.slice(0, -1).includes(told);
  if (older && performance.now() - tauReported < SETTLE) return;
  tau = Math.max(0, Math.min(HIGHEST_TAU, told));
  tauTold = told;
  tauSent = [];
}

// Another widget moved tau: the line goes there at once. What we reported ourselves comes back this way as well.
function previewTau(event) {
  const told = Number(event.detail);
  if (tauUnsent || tauSent.includes(told) || brush.chart.classList.contains("held")) return;
  tau = Math.max(0, Math.min(HIGHEST_TAU, told));
  tauSent.push(tau);
  tauReported = performance.now();
  drawBrush();
}

// ---------------------------------------------------------------- moving the line

function moveTau(next) {
  const rounded = Math.round(1000 * Math.max(0, Math.min(HIGHEST_TAU, next))) / 1000;
  if (rounded === tau) return;
  tau = rounded;
  tauUnsent = true;
  drawBrush();
  if (tauHeld === null) reportTau();
}

function reportTau() {
  tauHeld = null;
  if (!tauUnsent) return;
  tauUnsent = false;
  tauSeq += 1;
  tauSent.push(tau);
  tauReported = performance.now();
  trigger("tau_change", { tau, seq: tauSeq });
  tauHeld = setTimeout(reportTau, TAU_EVERY);
}

function grab(event) {
  if (event.button !== 0) return;
  event.preventDefault();
  brush.slider.focus({ focusVisible: false });
  brush.chart.setPointerCapture(event.pointerId);
  brush.chart.classList.add("held");
  pull(event);
}

function pull(event) {
  const edge = brush.chart.getBoundingClientRect();
  moveTau(Math.round(100 * (event.clientX - edge.left) / edge.width) / 100);
}

function settle() {
  if (!brush.chart.classList.contains("held")) return;
  brush.chart.classList.remove("held");
  clearTimeout(tauHeld);
  reportTau();
}

function nudge(event) {
  const steps = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01, PageDown: -0.1, PageUp: 0.1 };
  const ends = { Home: 0, End: HIGHEST_TAU };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in steps) moveTau(Number((tau + steps[event.key]).toFixed(2)));
  else if (event.key in ends) moveTau(ends[event.key]);
  else return;
  event.preventDefault();
}
