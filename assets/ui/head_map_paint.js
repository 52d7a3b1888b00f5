// Painting the map: one canvas a tower. A state is a shape, so it reads on every colour, in both themes, without hue.

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55",
  "#fee838"];
const PUOR = ["#2d004b", "#542788", "#8073ac", "#b2abd2", "#d8daeb", "#f7f7f7", "#fee0b6", "#fdb863", "#e08214",
  "#b35806", "#7f3b08"];
const RAMPS = { sequential: ramp(CIVIDIS), diverging: ramp(PUOR) };
const UNDER = "#0b0f18";
const OVER = "#ffffff";
const SWATCH = "#8a8678";  // behind the marks in the key: the middle of the sequential ramp
const FOG = 0.8;  // over a unit outside the search or the isolation
const HALF = 0.72;  // over the half of a unit whose score is unstable

function ramp(stops) {
  const parts = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  const shades = Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1);
    const [from, to] = [parts[Math.floor(at)], parts[Math.ceil(at)]];
    return `rgb(${from.map((part, k) => Math.round(part + (to[k] - part) * (at % 1))).join(" ")})`;
  });
  return { stops, shades };
}

function readLook() {
  const style = getComputedStyle(root);
  const token = (name) => style.getPropertyValue(name).trim();
  return { ramps: RAMPS, paper: token("--paper"), ink: token("--ink-soft"), line: token("--map-hairline"),
    rule: token("--line"), font: token("--mono") };
}

function canvasOf(canvas, width, height) {
  const sharp = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * sharp), Math.round(height * sharp)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const pen = canvas.getContext("2d");
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

function paintTower(tower, look) {
  const { data, lefts, tops, w, h, width, height } = tower;
  const pen = canvasOf(tower.canvas, width, height);
  const one = measureNow();
  const only = isolated();
  data.rows.forEach((name, row) => { if (row && newGroup(data, row)) rule(pen, tops[row] - BAND + 5, width, look); });
  data.units.forEach((line, row) => line.forEach((unit, column) => {
    if (unit === null) return;
    const box = { x: lefts[column] + 1, y: tops[row] + 1, w: w - 2, h: h - 2 };
    paintScore(pen, shade(one, one && data[one.name][row][column]), box, look);
    if (cellOf(tower, "unstable", row, column)) veil(pen, box, look);
    if (cellOf(tower, "open", row, column) === false) hatch(pen, box);
    paintState(pen, stateOf(unit), box, look);
    if ((only !== null && unit !== only) || (matches && !matches.has(unit))) fog(pen, box, look);
  }));
}

function fade(pen, look, alpha) {
  pen.globalAlpha = alpha;
  pen.fillStyle = look.paper;
  pen.fill();
  pen.globalAlpha = 1;
}

function fog(pen, box, look) {
  rounded(pen, box, -1);
  fade(pen, look, FOG);
}

function rule(pen, y, width, look) {
  pen.fillStyle = look.rule;
  pen.fillRect(0, y, width, 1);
}

function shade(one, cell) {
  const at = one ? drawn(one, cell) : null;
  if (at === null) return null;
  const [low, high] = domainOf(one);
  const share = Math.max(0, Math.min(1, (at - low) / (high - low || 1)));
  return RAMPS[one.ramp].shades[Math.round(share * 255)];
}

function rounded(pen, { x, y, w, h }, inset = 0, radius = 2) {
  pen.beginPath();
  pen.roundRect(x + inset, y + inset, w - 2 * inset, h - 2 * inset, radius);
}

function paintScore(pen, colour, box, look) {
  rounded(pen, box, colour === null ? 1 : 0);
  if (colour === null) return stroke(pen, look.ink, 1, [2, 3]);
  pen.fillStyle = colour;
  pen.fill();
  rounded(pen, box, 0.5);
  stroke(pen, look.line, 1);
}

function stroke(pen, colour, width, dash = []) {
  pen.setLineDash(dash);
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
}

// Half of the cell only: the other half keeps the true colour, and a corner is a shape where a tint is not.
function veil(pen, { x, y, w, h }, look) {
  pen.beginPath();
  pen.moveTo(x + w, y);
  pen.lineTo(x + w, y + h);
  pen.lineTo(x, y + h);
  fade(pen, look, HALF);
}

// A light line beside a dark one, so that it shows on both ends of a ramp and shouts on neither.
function hatch(pen, box) {
  pen.save();
  rounded(pen, box);
  pen.clip();
  for (const [shift, colour] of [[0, "rgb(11 15 24 / 0.32)"], [1.2, "rgb(255 255 255 / 0.42)"]]) {
    pen.beginPath();
    for (let x = shift - box.h; x < box.w; x += 8) {
      pen.moveTo(box.x + x, box.y + box.h);
      pen.lineTo(box.x + x + box.h, box.y);
    }
    stroke(pen, colour, 1);
  }
  pen.restore();
}

// ---------------------------------------------------------------- states

function paintState(pen, now, box, look) {
  const small = box.w < 26 || box.h < 24;
  if (now.state === "edited") paintEdited(pen, now, box, look, small);
  if (now.state === "off") paintOff(pen, box, small);
  if (now.state === "banned") paintCross(pen, box);
  if (now.locked) paintLock(pen, box, small);
}

function both(pen, dash = []) {
  stroke(pen, UNDER, 4.5, dash);
  stroke(pen, OVER, 2, dash);
}

function paintEdited(pen, now, box, look, small) {
  rounded(pen, box, small ? 2.5 : 3.5);
  both(pen);
  const partial = now.strength !== 1;
  const middle = box.y + box.h / 2;
  const text = now.round === null || now.round === undefined ? "+" : String(now.round);
  if (partial && box.h >= 22 && tag(pen, text, `${Math.round(now.strength * 100)}%`, box, look)) return;
  const size = small ? (partial ? 9 : 11) : 14;
  write(pen, text, box.x + box.w / 2, middle - (partial ? 2 : 0), size, look);
  if (partial) paintBar(pen, now.strength, box, small);
}

// Round and strength side by side; false where the cell is too narrow for both.
function tag(pen, round, strength, box, look) {
  const [left, right] = [round.length * 8, strength.length * 6];
  const start = box.x + (box.w - left - 3 - right) / 2;
  if (start < box.x + 7) return false;
  write(pen, round, start + left / 2, box.y + box.h / 2, 13, look);
  write(pen, strength, start + left + 3 + right / 2, box.y + box.h / 2 + 1, 10, look);
  return true;
}

function paintBar(pen, strength, box, small) {
  const inset = small ? 2.5 : 3.5;
  const [x, y, w] = [box.x + inset, box.y + box.h - inset - 2, box.w - 2 * inset];
  pen.fillStyle = UNDER;
  pen.fillRect(x, y - 2, w, 5);
  pen.fillStyle = OVER;
  pen.fillRect(x, y - 1, w * Math.min(1, strength), 3);
}

function write(pen, text, x, y, size, look) {
  pen.font = `700 ${size}px ${look.font}`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineJoin = "round";
  pen.setLineDash([]);
  pen.lineWidth = 3.5;
  pen.strokeStyle = UNDER;
  pen.strokeText(text, x, y + 0.5);
  pen.fillStyle = OVER;
  pen.fillText(text, x, y + 0.5);
}

function paintOff(pen, box, small) {
  rounded(pen, box, small ? 2.5 : 3.5);
  stroke(pen, UNDER, 4, [4, 4]);
  stroke(pen, OVER, 1.8, [4, 4]);
  pen.beginPath();
  pen.arc(box.x + box.w / 2, box.y + box.h / 2, small ? 2.5 : 4, 0, 2 * Math.PI);
  both(pen);
}

function paintCross(pen, box) {
  const [cx, cy] = [box.x + box.w / 2, box.y + box.h / 2];
  const reach = Math.min(box.w, box.h, 26) / 2 - 4;
  pen.beginPath();
  for (const side of [-1, 1]) {
    pen.moveTo(cx - reach, cy - side * reach);
    pen.lineTo(cx + reach, cy + side * reach);
  }
  pen.lineCap = "round";
  both(pen);
  pen.lineCap = "butt";
}

function paintLock(pen, box, small) {
  const size = small ? 7 : 9;
  const [x, y] = [box.x + box.w - size - 1, box.y + 1 + size * 0.45];
  pen.beginPath();
  pen.arc(x + size / 2, y, size * 0.3, Math.PI, 0);
  both(pen);
  pen.fillStyle = UNDER;
  pen.fillRect(x - 1, y - 1, size + 2, size * 0.7 + 2);
  pen.fillStyle = OVER;
  pen.fillRect(x, y, size, size * 0.7);
}

// ---------------------------------------------------------------- key

const KEY = [
  [{ state: "edited", round: 2 }, "in, with its round"],
  [{ state: "edited" }, "in, by hand"],
  [{ state: "edited", round: 2, strength: 0.8 }, "in, at part strength"],
  [{ state: "off", round: 2 }, "switched off, change kept"],
  [{ state: "banned" }, "banned"],
  [{ state: "free", locked: true }, "locked"],
  [{ closed: true }, "not open to growth"],
  [{ unstable: true }, "unstable score"],
  [{ unscored: true }, "not scored"],
];

let keyed = "";

// Explains what is on the map and no more; a map that can be edited always says how being in looks.
function drawKey(look) {
  const wanted = keysOnMap();
  const mode = [...wanted].join() + look.paper + (window.devicePixelRatio || 1) + document.fonts.status;
  if (mode === keyed) return;
  keyed = mode;
  key.replaceChildren(...KEY.filter((entry, i) => wanted.has(i)).map(([sample, words]) => {
    const entry = make("span", "map-key-entry");
    const canvas = make("canvas");
    canvas.setAttribute("aria-hidden", "true");
    paintSample(canvasOf(canvas, 48, 24), { ...UNTOUCHED, ...sample }, look);
    entry.append(canvas, make("span", "", words));
    return entry;
  }));
}

function paintSample(pen, sample, look) {
  const box = { x: 1, y: 1, w: 46, h: 22 };
  paintScore(pen, sample.unscored ? null : SWATCH, box, look);
  if (sample.unstable) veil(pen, box, look);
  if (sample.closed) hatch(pen, box);
  paintState(pen, sample, box, look);
}

function keysOnMap() {
  const one = measureNow();
  const wanted = new Set(value.readonly ? [] : [0, 1]);
  for (const { tower, row, column, unit } of cells) {
    const now = stateOf(unit);
    if (now.state === "edited") wanted.add(now.strength !== 1 ? 2 : now.round === null ? 1 : 0);
    if (now.state === "off") wanted.add(3);
    if (now.state === "banned") wanted.add(4);
    if (now.locked) wanted.add(5);
    if (cellOf(tower, "open", row, column) === false) wanted.add(6);
    if (cellOf(tower, "unstable", row, column)) wanted.add(7);
    if (one && cellOf(tower, one.name, row, column) === null) wanted.add(8);
  }
  return wanted;
}
