// The branches of the timeline: one tab each with a small menu, and a place to name a new one.
const branchBar = make("div", "branch-bar");
branchBar.setAttribute("role", "group");
branchBar.setAttribute("aria-label", "Branches");

const LONGEST_NAME = 40;
let branchesDrawn = "";
let openMenu = null;
let openForm = null;

function changeBranch(action, name, to = null, node = null) {
  trigger("branch_change", { action, name, to, node });
}

// A name being typed or a menu being read is left alone; the tabs catch up when it closes.
function drawBranches({ value }) {
  if (openForm || openMenu) return;
  const { branches, branch, compared } = value;
  const next = JSON.stringify([branches.map(({ name, locks, bans }) => [name, locks, bans]), branch, compared]);
  if (next === branchesDrawn) return;
  branchesDrawn = next;
  const focused = branchBar.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const add = press("branch-add", undefined, () => askForNew(add));
  add.dataset.key = "add";
  add.append(icon("plus"), make("span", "", "Branch from here"));
  branchBar.replaceChildren(...branches.map((one) => branchTab(one, value)), add);
  if (focused !== null) focusKey(focused);
}

function focusKey(key) {
  const buttons = [...branchBar.querySelectorAll("[data-key]")];
  const pressed = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
  (buttons.find((button) => button.dataset.key === key) || pressed)?.focus({ preventScroll: true });
}

function branchTab(one, { branch, branches, compared }) {
  const tab = make("div", "branch-tab");
  const name = press("branch-name", undefined, () => { if (one.name !== branch) changeBranch("switch", one.name); });
  name.setAttribute("aria-pressed", String(one.name === branch));
  name.dataset.key = `tab ${one.name}`;
  name.title = one.name;
  name.append(make("span", "branch-text", one.name));
  const counts = [[one.locks, "lock"], [one.bans, "ban"]].filter(([n]) => n);
  const words = counts.map(([n, noun]) => `${n} ${noun}${n === 1 ? "" : "s"}`).join(", ");
  if (words) name.append(make("span", "branch-counts", words));
  if (compared.includes(one.name)) name.append(icon("compare"), make("span", "visually-hidden", "compared"));
  const more = press("branch-more", undefined, () => (openMenu === menu ? closeMenu(true) : showMenu(tab, more, menu)));
  more.append(icon("more"));
  more.dataset.key = `more ${one.name}`;
  more.setAttribute("aria-haspopup", "menu");
  more.setAttribute("aria-expanded", "false");
  more.setAttribute("aria-label", `Menu of branch ${one.name}`);
  const menu = branchMenu(one, tab, more, compared.includes(one.name), branches.length === 1);
  tab.append(name, more, menu);
  return tab;
}

// ---------------------------------------------------------------- menu

function branchMenu(one, tab, more, isCompared, isLast) {
  const menu = make("div", "branch-menu");
  menu.hidden = true;
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", `Branch ${one.name}`);
  const rename = press("", "Rename", () => { closeMenu(false); askForRename(one.name, tab, more); });
  const compare = press("", "Compare", () => { closeMenu(true); changeBranch("compare", one.name); });
  const remove = press("", "Delete", () => deleteTwice(remove, one.name, isLast));
  for (const item of [rename, compare, remove]) {
    item.tabIndex = -1;
    item.setAttribute("role", "menuitem");
  }
  compare.setAttribute("role", "menuitemcheckbox");
  compare.setAttribute("aria-checked", String(isCompared));
  if (isLast) remove.setAttribute("aria-disabled", "true");
  menu.append(rename, compare, remove);
  menu.addEventListener("keydown", (event) => moveInMenu(menu, event));
  menu.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !tab.contains(event.relatedTarget)) closeMenu(false);
  });
  return menu;
}

// The first press asks, the second deletes: the rounds of a branch take minutes to grow again.
function deleteTwice(item, name, isLast) {
  if (isLast) return;
  if (item.classList.contains("sure")) {
    closeMenu(true);
    changeBranch("delete", name);
    return;
  }
  item.classList.add("sure");
  item.textContent = "Really delete?";
}

function showMenu(tab, more, menu) {
  closeMenu(false);
  openMenu = menu;
  menu.hidden = false;
  more.setAttribute("aria-expanded", "true");
  menu.classList.toggle("leftwards", tab.offsetLeft + menu.offsetWidth > root.clientWidth);
  menu.firstElementChild.focus({ preventScroll: true });
}

function closeMenu(refocus) {
  if (!openMenu) return;
  const more = openMenu.previousElementSibling;
  const remove = openMenu.lastElementChild;
  openMenu.hidden = true;
  openMenu = null;
  remove.classList.remove("sure");
  remove.textContent = "Delete";
  more.setAttribute("aria-expanded", "false");
  if (refocus) more.focus({ preventScroll: true });
  draw();
}

function moveInMenu(menu, event) {
  const items = [...menu.children];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (event.key === "Escape") closeMenu(true);
  else if (to !== undefined) items.at(to % items.length).focus({ preventScroll: true });
  else return;
  event.preventDefault();
  event.stopPropagation();
}

document.addEventListener("pointerdown", (event) => {
  if (openMenu && !openMenu.parentElement.contains(event.target)) closeMenu(false);
});

// ---------------------------------------------------------------- names

function askForNew(button) {
  const { value, current } = scene();
  const taken = value.branches.map((one) => one.name);
  let n = 2;
  while (taken.includes(`Branch ${n}`)) n += 1;
  nameForm(button, button, "Name of the new branch", `Branch ${n}`, "Create", (to) => {
    changeBranch("new", value.branch, to, current.id);
  });
}

function askForRename(name, tab, more) {
  nameForm(tab, more, `New name of branch ${name}`, name, "Rename", (to) => changeBranch("rename", name, to));
}

// Stands in the place of `hidden` until Enter or Escape, then hands the focus to `opener`.
function nameForm(hidden, opener, label, start, verb, act) {
  const form = make("form", "branch-form");
  const input = make("input");
  input.type = "text";
  input.maxLength = LONGEST_NAME;
  input.value = start;
  input.setAttribute("aria-label", label);
  const go = make("button", "branch-go", verb);
  go.type = "submit";
  const error = make("span", "branch-error");
  error.setAttribute("role", "alert");
  const close = () => {
    openForm = null;
    form.remove();
    hidden.hidden = false;
    opener.focus({ preventScroll: true });
    draw();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const to = input.value.trim().replace(/\s+/g, " ");
    error.textContent = to === start && hidden !== opener ? "" : nameTrouble(to);
    if (error.textContent) return;
    close();
    if (to !== start || hidden === opener) act(to);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  });
  form.append(input, go, press("branch-cancel", "Cancel", close), error);
  openForm = form;
  hidden.hidden = true;
  hidden.after(form);
  input.focus({ preventScroll: true });
  input.select();
}

function nameTrouble(name) {
  if (!name) return "A branch needs a name.";
  const taken = ((props.value || {}).branches || []).some((one) => one.name === name);
  return taken ? "There is already a branch of that name." : "";
}
