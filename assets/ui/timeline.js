// The growth timeline: frame, state and drawing. Its branches, rounds and curves are in the files beside this one.
const root = element.querySelector(".timeline");
const Plotly = window.Plotly;

const ICONS = {
  accepted: "M3 8.5L6.5 12L13 4.5", rejected: "M4 4L12 12M12 4L4 12", start: "M4 8H12", plus: "M8 3V13M3 8H13",
  fork: "M4 2V14M4 10C4 6.5 12 8.5 12 3", hand: "M3 13L4 10L11 3L13 5L6 12L3 13", more: "M3 8H3.1M8 8H8.1M13 8H13.1",
  compare: "M2.5 3H6.5V13H2.5ZM9.5 3H13.5V13H9.5Z",
};
const WIDE = 1040;  // px from which the round in detail stands beside the curves
const SEND_EVERY = 150;  // ms between two picks while the scrubber moves
const REPLY_LIMIT = 5000;  // ms after which an unanswered pick is no longer drawn

// ---------------------------------------------------------------- elements

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function icon(name) {
  const box = svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" });
  box.append(svg("path", { d: ICONS[name] }));
  return box;
}

function press(className, text, act) {
  const button = make("button", className, text);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

function token(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

function percent(share, digits = 1) {
  return (100 * share).toFixed(digits).replace(/\.0$/, "");
}

const finding = make("p", "finding");
const body = make("div", "timeline-body");
const empty = make("div", "empty-state");
empty.append(make("strong", "", "No rounds yet"), make("p", "", "Grow the edit to see what each round changes."));
body.append(plot, detail);
root.replaceChildren(finding, branchBar, scrubber, chips, body, empty);

// ---------------------------------------------------------------- what is current

let asked = null;  // the id picked here, until Python says the same
let unsent = null;
let sentAt = 0;
let sendTimer = null;
let replyTimer = null;

function currentId() {
  return asked ?? (props.value || {}).current;
}

// Draws at once; Python hears of it now or, during a drag, as soon as the last pick is old enough.
function pick(id) {
  if (id === currentId()) return;
  asked = unsent = id;
  clearTimeout(replyTimer);
  replyTimer = setTimeout(() => { asked = null; draw(); }, REPLY_LIMIT);
  const wait = sentAt + SEND_EVERY - Date.now();
  if (wait <= 0) send();
  else sendTimer ??= setTimeout(send, wait);
  draw();
}

function send() {
  clearTimeout(sendTimer);
  sendTimer = null;
  if (unsent === null) return;
  trigger("round_pick", { id: unsent });
  sentAt = Date.now();
  unsent = null;
}

function receive() {
  if ((props.value || {}).current === asked) {
    asked = null;
    clearTimeout(replyTimer);
  }
  draw();
}

// ---------------------------------------------------------------- drawing

let queued = false;

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawNow(); });
}

// Everything the drawing functions read: the value, its nodes by id, and the path of the branch shown.
function scene() {
  const value = props.value || {};
  const nodes = new Map((value.nodes || []).map((node) => [node.id, node]));
  const shown = (value.branches || []).find((branch) => branch.name === value.branch);
  const path = shown ? shown.path.map((id) => nodes.get(id)) : [];
  const wanted = path.findIndex((node) => node.id === currentId());
  const at = wanted < 0 ? path.findIndex((node) => node.id === value.current) : wanted;
  return { value, nodes, path, at, current: path[at] };
}

function drawNow() {
  const now = scene();
  const blank = now.path.length === 0;
  finding.textContent = now.value.finding || "";
  finding.hidden = !now.value.finding;
  empty.hidden = !blank;
  branchBar.hidden = scrubber.hidden = chips.hidden = body.hidden = blank;
  root.classList.toggle("wide", root.clientWidth >= WIDE);
  root.dataset.rounds = String(now.path.length);
  root.dataset.branches = String((now.value.branches || []).length);
  root.dataset.branch = now.value.branch || "";
  root.dataset.current = blank ? "" : String(now.current.id);
  if (!blank) {
    drawBranches(now);
    drawRounds(now);
    if (!plot.clientWidth) return;  // in a hidden tab; the resize observer calls again
    drawCurves(now);
  }
  root.dataset.ready = "true";
}

const modes = new MutationObserver(() => (root.isConnected ? draw() : modes.disconnect()));
modes.observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", receive);
new ResizeObserver(draw).observe(root);
draw();
