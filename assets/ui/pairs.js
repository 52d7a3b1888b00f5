// Pairs of pictures before and after an edit, and sheets of pictures: what is there, and when it is drawn. Pairs keep
// their elements from value to value, so that a drag, the focus and an open dialog outlive a stream of new values.
const root = element.querySelector(".pairs");

const finding = make("p", "finding");
const progress = buildProgress();
const groupsBox = make("div", "pair-groups");
const empty = make("div", "empty-state");
const emptyWords = make("p");
let shownGroups = [];
let shownPairs = new Map();  // id -> its elements and data

empty.append(make("strong", "", "Nothing to show yet"), emptyWords);
buildBar();
root.tabIndex = -1;  // a click anywhere between the pictures is enough for F to work
root.addEventListener("keydown", flipKey);

// ---------------------------------------------------------------- progress

function buildProgress() {
  const box = make("div", "pairs-progress");
  const track = make("div", "pairs-track");
  const words = make("span");
  track.setAttribute("role", "progressbar");
  track.setAttribute("aria-label", "Pictures drawn");
  track.setAttribute("aria-valuemin", "0");
  track.append(make("span"));
  box.append(track, words);
  return { box, track, words };
}

function fillProgress(now) {
  progress.box.hidden = !now;
  if (!now) return;
  progress.track.setAttribute("aria-valuemax", String(now.total));
  progress.track.setAttribute("aria-valuenow", String(now.done));
  progress.track.style.setProperty("--done", `${now.total ? (100 * now.done) / now.total : 0}%`);
  write(progress.words, [`${now.done} of ${now.total}`, now.note].filter(Boolean).join(", "));
}

// ---------------------------------------------------------------- pairs

function buildPair(id) {
  const box = make("li", "pair");
  const frame = make("div", "pair-frame");
  const open = pushButton("pair-open", undefined, () => openDialog({ id }));
  const pictures = SIDES.map(buildPicture);
  const difference = buildDifference();
  const divider = make("div", "pair-divider");
  const seenBox = make("div", "pair-seen");
  const seen = SIDES.map(buildSeen);
  const prompt = make("p", "pair-prompt");
  const foot = make("div", "pair-foot");
  const verdict = make("span", "verdict pair-verdict");
  const seed = make("span", "pair-seed");
  open.setAttribute("aria-haspopup", "dialog");
  open.append(...pictures.map((picture) => picture.box), difference.box);
  const slider = { role: "slider", "aria-orientation": "horizontal", "aria-valuemin": 0, "aria-valuemax": 100 };
  for (const [name, fact] of Object.entries(slider)) divider.setAttribute(name, fact);
  divider.tabIndex = 0;
  frame.append(open, divider);
  listenToFrame(frame, divider);
  seenBox.append(...seen.map((one) => one.box), difference.amount);
  foot.append(verdict, seed);
  box.append(frame, seenBox, prompt, foot);
  box.dataset.id = id;
  differences.set(box, difference);
  sight.observe(box);
  return { box, frame, open, pictures, difference, divider, seenBox, seen, prompt, foot, verdict, seed, data: null };
}

function fillPair(pair, data) {
  pair.data = data;
  const about = data.seed ? `${data.prompt}, seed ${data.seed}` : data.prompt;
  pair.open.setAttribute("aria-label", `Enlarge ${about}`);
  pair.open.disabled = pair.divider.hidden = !safe(data.before) && !safe(data.after);
  pair.divider.setAttribute("aria-label", `Wipe ${about}`);
  SIDES.forEach((side, i) => {
    const saw = data[`saw_${side}`];
    fillPicture(pair.pictures[i], data[side], `${state.names[i]}: ${data.prompt}`);
    fillSeen(pair.seen[i], state.names[i], saw, state.forget);
  });
  pair.seenBox.classList.toggle("unseen", !data.saw_before && !data.saw_after);
  fillDifference(pair.difference, data.before, data.after);
  write(pair.prompt, data.prompt);
  pair.prompt.title = data.prompt;
  write(pair.seed, data.seed ? `seed ${data.seed}` : "");
  fillVerdict(pair.verdict, data.verdict);
  pair.foot.hidden = !data.verdict && !data.seed;
}

// ---------------------------------------------------------------- groups

function buildGroup() {
  const box = make("section", "pair-group");
  const head = make("div", "pair-group-head");
  const [title, tally, note] = [make("h3"), make("span", "pair-tally"), make("p")];
  const list = make("ul", "pair-grid");
  head.append(title, tally, note);
  box.append(head, list);
  return { box, title, tally, note, list };
}

function fillGroup(group, data) {
  group.box.dataset.kind = data.kind;
  write(group.title, data.title);
  write(group.tally, tallyOf(data.pairs));
  write(group.note, data.note);
  group.note.hidden = !data.note;
  arrange(group.list, data.pairs.map((pair) => shownPairs.get(pair.id).box));
}

function tallyOf(pairs) {
  const counts = Object.keys(VERDICTS).map((word) => [pairs.filter((pair) => pair.verdict === word).length, word]);
  const told = counts.filter(([count]) => count).map(([count, word]) => `${count} ${word}`);
  return [pairs.length === 1 ? "1 pair" : `${pairs.length} pairs`, ...told].join(", ");
}

function drawGroups(groups) {
  const before = shownPairs;
  shownPairs = new Map(groups.flatMap((group) => group.pairs).map((data) => {
    const pair = before.get(data.id) || buildPair(data.id);
    fillPair(pair, data);
    return [data.id, pair];
  }));
  for (const [id, pair] of before) if (!shownPairs.has(id)) release(pair);
  shownGroups = groups.map((data, i) => shownGroups[i] || buildGroup());
  groups.forEach((data, i) => fillGroup(shownGroups[i], data));
  arrange(groupsBox, shownGroups.map((group) => group.box));
}

function release({ box, frame, difference }) {
  if (press && press.frame === frame) up({ pointerId: press.id });  // it will hear of no pointer any more
  sight.unobserve(box);
  waiting.delete(difference);
}

// ---------------------------------------------------------------- drawing

function draw() {
  const value = props.value || {};
  const groups = (value.groups || []).filter((group) => group.pairs.length);
  state.names = value.sides || state.names;
  state.forget = value.forget_label ?? null;
  const seen = groups.some((group) => group.pairs.some((pair) => pair.saw_before || pair.saw_after));
  state.judged = seen ? `What a picture shows is ${value.judged}.` : "";
  write(finding, value.finding || "");
  write(emptyWords, value.empty || "");
  fillProgress(value.progress);
  if (value.sheet) drawSheet(value.sheet);
  drawGroups(value.sheet ? [] : groups);
  finding.hidden = !value.finding;
  const body = value.sheet ? [sheetBox] : groups.length ? [bar, groupsBox] : [empty];
  arrange(root, [finding, progress.box, ...body, large.box]);
  drawView();
  if (large.of !== null) fillDialog();
  root.dataset.pairs = String(shownPairs.size);
  root.dataset.ready = "true";
}

watch("value", draw);
draw();
