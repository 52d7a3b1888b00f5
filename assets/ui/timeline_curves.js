// The accuracy of every round with its interval; other branches are faint lines in the same colours.
const plot = make("div", "timeline-plot");
plot.setAttribute("role", "img");

const CURVES = [["forget", "circle"], ["retain", "square"], ["neighbour", "diamond"]];
const HEIGHT = 320;
const MARGIN = { l: 56, r: 148, t: 12, b: 48 };
const LABEL_GAP = 18;  // px between the names at the ends of two curves
const BESIDE = 0.4;  // rounds from the current one to the changes made by hand on top of it

function drawCurves(now) {
  const { finding: words } = now.value;
  plot.setAttribute("aria-label", words || "Accuracy of every round");
  Plotly.react(plot, traces(now), layout(now), { displayModeBar: false, scrollZoom: false, doubleClick: false });
}

// Plotly reads tags and entities in its texts; a name a person wrote is shown as it is.
function literal(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function short(name) {
  return literal(name.length > 16 ? `${name.slice(0, 15)}\u2026` : name);
}

function stands(node) {
  return node.kind === "start" || node.accepted;
}

// ---------------------------------------------------------------- lines

function traces(now) {
  const { path, at, value } = now;
  const ghosts = otherBranches(now).flatMap(ghostLines);
  const mine = CURVES.flatMap(([name, symbol]) => {
    const colour = token(`--razor-${name}`);
    const measured = path.filter((node) => node[name]);
    const kept = measured.filter(stands);
    const done = path.slice(0, at + 1).filter((node) => node[name] && stands(node));
    const list = [];
    const later = kept.slice(Math.max(0, done.length - 1));
    if (kept.length > done.length) list.push(curve(name, symbol, later, colour, 0.4));
    if (kept.length) list.unshift(band(name, kept, colour));
    if (done.length) list.push(curve(name, symbol, done, colour, 1));
    const refused = measured.filter((node) => !stands(node));
    if (refused.length) list.push(hollow(name, symbol, refused, colour));
    const point = value.draft && value.draft[name];
    const from = done.at(-1);
    if (point && from) list.push(...draftPoint(name, symbol, point, [now.current.index, from[name]], colour));
    return list;
  });
  return [...ghosts, ...mine];
}

function hoverText(name, point, title) {
  const { value, low, high, n } = point;
  const span = low === null || high === null ? "" : ` [${percent(low)}, ${percent(high)}]`;
  return `${title}<br><b>${name} ${percent(value)} %</b>${span}${n === null ? "" : `, n = ${n}`}`;
}

function titleOf(node) {
  return roundName(node) + (stands(node) ? "" : ", rejected");
}

function band(name, nodes, colour) {
  const ends = nodes.filter((node) => node[name].low !== null && node[name].high !== null);
  const back = [...ends].reverse();
  return {
    type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", opacity: 0.16, fillcolor: colour,
    line: { width: 0, color: colour },
    x: [...ends, ...back].map((node) => node.index),
    y: [...ends.map((node) => 100 * node[name].high), ...back.map((node) => 100 * node[name].low)],
  };
}

function curve(name, symbol, nodes, colour, opacity) {
  return {
    type: "scatter", mode: "lines+markers", name, opacity, x: nodes.map((node) => node.index),
    y: nodes.map((node) => 100 * node[name].value), line: { color: colour, width: 2.5 },
    marker: { color: colour, size: 9, symbol }, text: nodes.map((node) => hoverText(name, node[name], titleOf(node))),
    hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
  };
}

function hollow(name, symbol, nodes, colour) {
  const paper = token("--block-background-fill") || "white";
  const bar = (end) => nodes.map(({ [name]: p }) => (p[end] === null ? 0 : 100 * Math.abs(p[end] - p.value)));
  return {
    type: "scatter", mode: "markers", x: nodes.map((node) => node.index),
    y: nodes.map((node) => 100 * node[name].value),
    marker: { color: paper, size: 10, symbol, line: { color: colour, width: 2 } },
    error_y: { type: "data", symmetric: false, array: bar("high"), arrayminus: bar("low"), color: colour,
      thickness: 1, width: 3 },
    text: nodes.map((node) => hoverText(name, node[name], titleOf(node))),
    hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
  };
}

// Changes by hand that are not grown yet: a hollow point beside the current round, tied to it by a dotted line.
function draftPoint(name, symbol, point, [index, from], colour) {
  const here = { index: index + BESIDE, kind: "start", [name]: point };
  const tie = {
    type: "scatter", mode: "lines", hoverinfo: "skip", x: [index, here.index],
    y: [100 * from.value, 100 * point.value], line: { color: colour, width: 1.5, dash: "dot" },
  };
  return [tie, { ...hollow(name, symbol, [here], colour), text: [hoverText(name, point, "By hand, not grown")] }];
}

// ---------------------------------------------------------------- other branches

// Each with the part of it that is not on the path shown, led by the last kept round both share.
function otherBranches({ value, nodes, path }) {
  const shown = new Set(path.map((node) => node.id));
  return value.branches.filter((branch) => branch.name !== value.branch).flatMap((branch) => {
    const own = branch.path.map((id) => nodes.get(id));
    const start = own.filter((node) => shown.has(node.id) && stands(node)).at(-1);
    const rest = own.filter((node) => !shown.has(node.id) && stands(node));
    return rest.length ? [{ name: branch.name, nodes: start ? [start, ...rest] : rest }] : [];
  });
}

function ghostLines(branch) {
  return CURVES.flatMap(([name]) => {
    const known = branch.nodes.filter((node) => node[name]);
    const title = (node) => `${literal(branch.name)}, ${titleOf(node).toLowerCase()}`;
    return known.length < 2 ? [] : [{
      type: "scatter", mode: "lines", opacity: 0.45, line: { color: token(`--razor-${name}`), width: 1.25 },
      x: known.map((node) => node.index), y: known.map((node) => 100 * node[name].value), cliponaxis: false,
      text: known.map((node) => hoverText(name, node[name], title(node))), hovertemplate: "%{text}<extra></extra>",
    }];
  });
}

// ---------------------------------------------------------------- words on the chart

// Pushes labels apart, downwards first and back up where they would leave the field.
function apart(labels, gap, bottom) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((one, i) => { if (i) one.y = Math.max(one.y, labels[i - 1].y + gap); });
  const spill = labels.length ? labels.at(-1).y - bottom : 0;
  if (spill <= 0) return;
  labels.at(-1).y -= spill;
  for (let i = labels.length - 2; i >= 0; i -= 1) labels[i].y = Math.min(labels[i].y, labels[i + 1].y - gap);
}

// The name and last value at the end of each curve, and each other branch's name where it ends.
function endLabels(now) {
  const { path, value, current } = now;
  const height = HEIGHT - MARGIN.t - MARGIN.b;
  const beside = value.draft ? current.index + BESIDE : 0;
  const mine = CURVES.flatMap(([name]) => {
    const last = path.filter((node) => node[name] && stands(node)).at(-1);
    if (!last) return [];
    const drafted = value.draft && current === path.at(-1) ? value.draft[name] : null;
    const point = drafted || last[name];  // beside a change by hand stands its own number
    const font = { color: token(`--razor-${name}`), size: 13 };
    const text = `<b>${name}</b> ${percent(point.value)} %`;
    return [{ text, font, x: Math.max(beside, path.at(-1).index), y: (1 - point.value) * height }];
  });
  const others = otherBranches(now).flatMap((branch) => {
    const last = branch.nodes.filter((node) => node.forget || node.retain).at(-1);
    const font = { color: token("--body-text-color-subdued"), size: 12 };
    const end = last && (last.forget || last.retain);
    return last ? [{ text: short(branch.name), font, x: last.index, y: (1 - end.value) * height }] : [];
  });
  const labels = [...mine, ...others];
  for (const column of new Set(labels.map((one) => one.x))) {
    apart(labels.filter((one) => one.x === column), LABEL_GAP, height);
  }
  return labels.map(({ text, font, x, y }) => ({
    text, font, x, xanchor: "left", xshift: 12, yref: "paper", y: 1 - y / height, yanchor: "middle", showarrow: false,
    bgcolor: token("--block-background-fill"),
  }));
}

function targetLabel(target) {
  return {
    text: `forget target ${percent(target)} %`, showarrow: false, xref: "paper", x: 0, xanchor: "left", xshift: 6,
    y: 100 * target, yanchor: "bottom", yshift: 1, font: { color: token("--razor-forget"), size: 12 },
  };
}

function shapes({ value, current }) {
  const list = [{ type: "rect", x0: current.index - 0.18, x1: current.index + 0.18, yref: "paper", y0: 0, y1: 1,
    layer: "below", line: { width: 0 }, fillcolor: token("--razor-edited"), opacity: 0.12 }];
  if (value.target === null) return list;
  const line = { color: token("--razor-forget"), width: 1.5, dash: "dash" };
  const y = 100 * value.target;
  return [...list, { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below", line }];
}

// The axis spans every branch, so that picking, switching and drafting never move the curves.
function layout(now) {
  const last = Math.max(1, ...now.value.nodes.map((node) => node.index));
  const ink = token("--body-text-color-subdued");
  const grid = token("--border-color-primary");
  const font = { family: "IBM Plex Sans, system-ui, sans-serif", color: token("--body-text-color") };
  const tickfont = { color: ink, size: 12 };
  const axis = { zeroline: false, gridcolor: grid, linecolor: grid, tickfont, fixedrange: true };
  const title = (text) => ({ text, font: { color: ink, size: 13 }, standoff: 10 });
  const target = now.value.target === null ? [] : [targetLabel(now.value.target)];
  return {
    width: plot.clientWidth, height: HEIGHT, margin: MARGIN, font, showlegend: false, hovermode: "closest",
    hoverdistance: 24, dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: token("--block-background-fill"), bordercolor: ink, font: { ...font, size: 13 } },
    xaxis: { ...axis, range: [-0.25, last + 0.5], dtick: Math.max(1, Math.ceil(last / 16)), tick0: 0, showgrid: false,
      title: title("growth round") },
    yaxis: { ...axis, range: [0, 100], dtick: 25, ticksuffix: " %", title: title("accuracy") },
    annotations: [...target, ...endLabels(now)], shapes: shapes(now),
  };
}
