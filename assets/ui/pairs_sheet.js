// A sheet: pictures over two axes, and a table for each value of a third. The tables stay while only pictures change,
// so a sheet that is being drawn keeps its scroll position.
const sheetBox = make("div", "pair-sheet");
const sheetTitle = make("h3");
const sheetNote = make("p");
const sheetTables = make("div", "pair-sheet-tables");
let outline = "";  // of the tables there are
let sheetCells = [];  // [z][y][x]

sheetBox.append(sheetTitle, sheetNote, sheetTables);

function drawSheet(sheet) {
  write(sheetTitle, sheet.title);
  write(sheetNote, sheet.note);
  sheetNote.hidden = !sheet.note;
  const now = JSON.stringify([sheet.x, sheet.y, sheet.z]);
  if (now !== outline) {
    outline = now;
    if (large.of && large.of.place) large.box.close();
    sheetCells = [];
    sheetTables.replaceChildren(...sheet.cells.map((rows, z) => buildTable(sheet, z)));
  }
  sheet.cells.forEach((rows, z) => rows.forEach((row, y) => row.forEach((cell, x) => fillCell([z, y, x], cell))));
}

function buildTable({ x, y, z }, at) {
  const box = make("section");
  const name = z ? labelled(z, at) : "";
  const scroller = make("div", "pair-sheet-scroll");
  const table = make("table");
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", name ? `Sheet, ${name}` : "Sheet");
  table.append(headRow(x, y));
  const body = make("tbody");
  sheetCells[at] = y.values.map((value, row) => {
    const line = make("tr");
    const cells = x.values.map((_, column) => buildCell([at, row, column]));
    line.append(header(value, "row"), ...cells.map((cell) => cell.box));
    body.append(line);
    return cells;
  });
  table.append(body);
  scroller.append(table);
  if (name) box.append(make("h4", "", name));
  box.append(scroller);
  return box;
}

function headRow(x, y) {
  const head = make("thead");
  const line = make("tr");
  const corner = make("td", "pair-sheet-corner");
  if (x.name) corner.append(make("span", "", `${x.name} \u2192`));
  if (y.name) corner.append(make("span", "", `${y.name} \u2193`));
  line.append(corner, ...x.values.map((value) => header(value, "col")));
  head.append(line);
  return head;
}

function header(text, scope) {
  const cell = make("th");
  cell.scope = scope;
  cell.append(make("span", "", text));
  return cell;
}

function labelled(axis, at) {
  return axis.name ? `${axis.name}: ${axis.values[at]}` : axis.values[at];
}

function buildCell(place) {
  const box = make("td");
  const open = pushButton("pair-open", undefined, () => openDialog({ place }));
  const picture = buildPicture();
  const caption = make("span", "pair-prompt");
  open.setAttribute("aria-haspopup", "dialog");
  open.append(picture.box);
  box.append(open, caption);
  return { box, open, picture, caption, data: null };
}

function fillCell([z, y, x], data) {
  const cell = sheetCells[z][y][x];
  cell.data = data;
  fillPicture(cell.picture, data.image, "");
  cell.open.disabled = !safe(data.image);
  cell.open.setAttribute("aria-label", `Enlarge ${namesOf([z, y, x]).map(([, value]) => value).join(", ")}`);
  write(cell.caption, data.caption);
  cell.caption.title = data.caption;
  cell.caption.hidden = !data.caption;
}

// The axes of a cell with their values there.
function namesOf([z, y, x]) {
  const { sheet } = props.value;
  const axes = [[sheet.y, y], [sheet.x, x], ...(sheet.z ? [[sheet.z, z]] : [])];
  return axes.map(([axis, at]) => [axis.name, axis.values[at]]);
}

function aboutCell(place) {
  const [z, y, x] = place;
  const { sheet } = props.value || {};
  const data = sheet && sheet.cells[z] && sheet.cells[z][y] && sheet.cells[z][y][x];
  if (!data) return null;
  const names = namesOf(place);
  const words = names.map(([, value]) => value).join(", ");
  const file = words.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "picture";
  const picture = { side: "", name: "", url: data.image, alt: words, saw: "", file };
  return { title: data.caption || words, pictures: [picture], facts: names };
}
