// The growth timeline: one chip a round above the accuracy of every round, with its interval.
const root = element.querySelector(".timeline");
const Plotly = window.Plotly;

const CURVES = [["forget", "circle"], ["retain", "square"], ["neighbour", "diamond"]];
const ICONS = { accepted: "M3 8.5L6.5 12L13 4.5", rejected: "M4 4L12 12M12 4L4 12", start: "M4 8H12" };
const HEIGHT = 320;
const LABEL_GAP = 18;  // px between the names at the ends of two curves

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const finding = make("p", "finding");
const chips = make("div", "round-chips");
const plot = make("div", "timeline-plot");
const empty = make("div", "empty-state");
empty.append(make("strong", "", "No rounds yet"), make("p", "", "Grow the edit to see what each round changes."));
chips.setAttribute("role", "group");
chips.setAttribute("aria-label", "Growth rounds");
root.replaceChildren(finding, chips, plot, empty);

let chosen = null;
let shown = 0;

function percent(share, digits = 1) {
  return (100 * share).toFixed(digits).replace(/\.0$/, "");
}

function token(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

// ---------------------------------------------------------------- chips

function chip(round) {
  const state = round.index === 0 && !round.unit ? "start" : round.accepted ? "accepted" : "rejected";
  const button = make("button", "round-chip");
  button.type = "button";
  button.dataset.state = state;
  button.dataset.index = String(round.index);
  button.setAttribute("aria-pressed", String(round.index === chosen));
  const top = make("span", "round-top");
  top.append(make("strong", "", state === "start" ? "Start" : `Round ${round.index}`));
  if (round.seconds) top.append(make("span", "round-seconds", `${round.seconds.toFixed(1)} s`));
  const word = make("span", "round-word");
  word.append(icon(state), make("span", "", state === "start" ? round.note || "unedited" : state));
  button.append(top, make("span", "round-unit", round.unit || "no unit"), word);
  if (state !== "start" && round.note) button.append(make("span", "round-note", round.note));
  button.title = [round.unit, round.note].filter(Boolean).join(": ");
  button.addEventListener("click", () => {
    chosen = round.index;
    trigger("round_pick", { index: round.index });
    draw();
  });
  return button;
}

function drawChips(rounds) {
  const focused = chips.contains(document.activeElement) ? document.activeElement.dataset.index : null;
  chips.replaceChildren(...rounds.map(chip));
  if (focused !== null) [...chips.children].find((node) => node.dataset.index === focused)?.focus();
  if (rounds.length > shown) chips.scrollLeft = chips.scrollWidth;
  shown = rounds.length;
}

// ---------------------------------------------------------------- curves

function hoverText(name, round) {
  const { value, low, high, n } = round[name];
  const span = low === null || high === null ? "" : ` [${percent(low)}, ${percent(high)}]`;
  const state = round.accepted ? "" : ", rejected";
  return `round ${round.index}${state}<br><b>${name} ${percent(value)} %</b>${span}${n === null ? "" : `, n = ${n}`}`;
}

function band(name, points, colour) {
  const ends = points.filter((r) => r[name].low !== null && r[name].high !== null);
  const back = [...ends].reverse();
  return {
    type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", opacity: 0.16, fillcolor: colour,
    line: { width: 0, color: colour },
    x: [...ends, ...back].map((r) => r.index),
    y: [...ends.map((r) => 100 * r[name].high), ...back.map((r) => 100 * r[name].low)],
  };
}

function curve(name, symbol, points, colour) {
  return {
    type: "scatter", mode: "lines+markers", name, x: points.map((r) => r.index),
    y: points.map((r) => 100 * r[name].value), line: { color: colour, width: 2.5 },
    marker: { color: colour, size: 9, symbol }, text: points.map((r) => hoverText(name, r)),
    hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
  };
}

function hollow(name, symbol, points, colour, paper) {
  const bar = (end) => points.map((r) => (r[name][end] === null ? 0 : 100 * Math.abs(r[name][end] - r[name].value)));
  return {
    type: "scatter", mode: "markers", x: points.map((r) => r.index), y: points.map((r) => 100 * r[name].value),
    marker: { color: paper, size: 10, symbol, line: { color: colour, width: 2 } },
    error_y: { type: "data", symmetric: false, array: bar("high"), arrayminus: bar("low"), color: colour,
      thickness: 1, width: 3 },
    text: points.map((r) => hoverText(name, r)), hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
  };
}

function traces(rounds) {
  const paper = token("--block-background-fill") || "white";
  return CURVES.flatMap(([name, symbol]) => {
    const measured = rounds.filter((r) => r[name]);
    const kept = measured.filter((r) => r.accepted);
    const refused = measured.filter((r) => !r.accepted);
    const colour = token(`--razor-${name}`);
    const lines = kept.length ? [band(name, kept, colour), curve(name, symbol, kept, colour)] : [];
    return refused.length ? [...lines, hollow(name, symbol, refused, colour, paper)] : lines;
  });
}

// The name and last value at the end of each curve, pushed apart where they would overlap.
function endLabels(rounds, plotHeight) {
  const ends = CURVES.flatMap(([name]) => {
    const last = rounds.filter((r) => r.accepted && r[name]).at(-1);
    return last ? [{ name, value: last[name].value, x: last.index, y: (1 - last[name].value) * plotHeight }] : [];
  }).sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { if (i) end.y = Math.max(end.y, ends[i - 1].y + LABEL_GAP); });
  const spill = ends.length ? ends.at(-1).y - plotHeight : 0;
  if (spill > 0) {
    ends.at(-1).y -= spill;
    for (let i = ends.length - 2; i >= 0; i -= 1) ends[i].y = Math.min(ends[i].y, ends[i + 1].y - LABEL_GAP);
  }
  return ends.map((end) => ({
    text: `<b>${end.name}</b> ${percent(end.value)} %`, showarrow: false, xref: "paper", x: 1, xanchor: "left",
    xshift: 14, yref: "paper", y: 1 - end.y / plotHeight, yanchor: "middle",
    font: { color: token(`--razor-${end.name}`), size: 13 },
  }));
}

function targetLabel(target) {
  return {
    text: `forget target ${percent(target)} %`, showarrow: false, xref: "paper", x: 0, xanchor: "left", xshift: 6,
    y: 100 * target, yanchor: "bottom", yshift: 1, font: { color: token("--razor-forget"), size: 12 },
  };
}

function shapes(value) {
  const list = [];
  if (value.target !== null && value.target !== undefined) {
    list.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: 100 * value.target, y1: 100 * value.target,
      layer: "below", line: { color: token("--razor-forget"), width: 1.5, dash: "dash" } });
  }
  if (value.rounds.some((r) => r.index === chosen)) {
    list.push({ type: "rect", x0: chosen - 0.18, x1: chosen + 0.18, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: { width: 0 }, fillcolor: token("--razor-edited"), opacity: 0.12 });
  }
  return list;
}

function layout(value, width) {
  const margin = { l: 56, r: 136, t: 12, b: 48 };
  const last = Math.max(1, ...value.rounds.map((r) => r.index));
  const ink = token("--body-text-color-subdued");
  const grid = token("--border-color-primary");
  const font = { family: "IBM Plex Sans, system-ui, sans-serif", color: token("--body-text-color") };
  const axis = { zeroline: false, gridcolor: grid, linecolor: grid, tickfont: { color: ink, size: 12 } };
  const title = (text) => ({ text, font: { color: ink, size: 13 }, standoff: 10 });
  const labels = endLabels(value.rounds, HEIGHT - margin.t - margin.b);
  const target = value.target === null || value.target === undefined ? [] : [targetLabel(value.target)];
  return {
    width, height: HEIGHT, margin, showlegend: false, hovermode: "closest", hoverdistance: 24, dragmode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font,
    hoverlabel: { bgcolor: token("--block-background-fill"), bordercolor: ink, font: { ...font, size: 13 } },
    xaxis: { ...axis, range: [-0.25, last + 0.25], dtick: Math.max(1, Math.ceil(last / 16)), tick0: 0, showgrid: false,
      title: title("growth round"), fixedrange: true },
    yaxis: { ...axis, range: [0, 100], dtick: 25, ticksuffix: " %", title: title("accuracy"), fixedrange: true },
    annotations: [...target, ...labels], shapes: shapes(value),
  };
}

// ---------------------------------------------------------------- drawing

let queued = false;

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawNow(); });
}

function drawNow() {
  const value = props.value || {};
  const rounds = value.rounds || [];
  finding.textContent = value.finding || "";
  finding.hidden = !value.finding;
  empty.hidden = rounds.length > 0;
  chips.hidden = plot.hidden = rounds.length === 0;
  root.dataset.rounds = String(rounds.length);
  if (!rounds.length) {
    shown = 0;
    chosen = null;
    root.dataset.ready = "true";
    return;
  }
  drawChips(rounds);
  if (!plot.clientWidth) return;  // in a hidden tab; the resize observer calls again
  Plotly.react(plot, traces(rounds), layout({ ...value, rounds }, plot.clientWidth),
    { displayModeBar: false, scrollZoom: false, doubleClick: false });
  root.dataset.ready = "true";
}

const modes = new MutationObserver(() => (root.isConnected ? draw() : modes.disconnect()));
modes.observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", draw);
new ResizeObserver(draw).observe(root);
draw();
