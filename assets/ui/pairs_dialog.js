// One pair or one picture of a sheet, large, with all that is known about it. Built once and filled again, so that new
// values leave the focus and the scroll position alone.
const large = buildDialog();

function buildDialog() {
  const box = make("dialog", "pair-dialog");
  const body = make("div", "pair-dialog-body");
  const head = make("div", "pair-dialog-head");
  const title = make("h3");
  const close = pushButton("pair-button", "Close", () => box.close());
  const figures = make("div", "pair-dialog-pictures");
  const facts = make("dl");
  title.id = uniqueId("pair-dialog");
  box.setAttribute("aria-labelledby", title.id);
  head.append(title, close);
  body.append(head, figures, facts);
  box.append(body);
  let outside = false;  // a selection that begins inside and ends on the backdrop closes nothing
  box.addEventListener("pointerdown", (event) => { outside = event.target === box; });
  box.addEventListener("click", (event) => { if (outside && event.target === box) box.close(); });
  box.addEventListener("close", () => { if (!box.open) large.of = null; });  // it may be open again by then
  return { box, title, figures, facts, of: null, sides: [0, 1].map(buildFigure) };
}

function buildFigure() {
  const box = make("figure");
  const picture = buildPicture();
  const line = make("figcaption");
  const seen = buildSeen("");
  const link = make("a", "pair-button", "Download");
  picture.image.loading = "eager";
  line.append(seen.box, link);
  box.append(picture.box, line);
  return { box, picture, seen, link };
}

// `of` is what the dialog shows: the id of a pair, or the place of a cell. It is looked up again when a value comes.
function openDialog(of) {
  large.of = of;
  if (!fillDialog()) return;
  large.box.showModal();
  large.box.scrollTop = 0;
}

function fillDialog() {
  if (large.of === null) return false;
  const shown = large.of.place ? aboutCell(large.of.place) : aboutPair(large.of.id);
  if (!shown) {
    large.of = null;
    large.box.close();
    return false;
  }
  write(large.title, shown.title);
  arrange(large.figures, shown.pictures.map((picture, i) => fillFigure(large.sides[i], picture)));
  const rows = shown.facts.filter(([, text]) => text).map(([label, text]) => {
    const row = make("div");
    row.append(make("dt", "", label), text instanceof Node ? text : make("dd", "", text));
    return row;
  });
  large.facts.replaceChildren(...rows);
  return true;
}

function fillFigure({ box, picture, seen, link }, { side, name, url, alt, saw, file }) {
  fillPicture(picture, url, alt);
  seen.box.hidden = !side;
  seen.box.dataset.side = picture.box.dataset.side = side;
  fillSeen(seen, name, saw, state.forget);
  fillDownload(link, url, file);
  link.setAttribute("aria-label", `Download ${name || "picture"}`);
  return box;
}

function aboutPair(id) {
  const known = shownPairs.get(id);
  if (!known) return null;
  const { data } = known;
  const chip = make("dd");
  const mark = make("span", "verdict pair-verdict");
  fillVerdict(mark, data.verdict);
  chip.append(mark);
  const pictures = SIDES.map((side, i) => ({ side, name: state.names[i], url: data[side], saw: data[`saw_${side}`],
    alt: `${state.names[i]}: ${data.prompt}`, file: `${side}-${data.seed || data.id}` }));
  return { title: data.prompt, pictures, facts: [["Seed", data.seed], ["Verdict", data.verdict && chip]] };
}
