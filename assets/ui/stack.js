// The stack of forgotten concepts: one row each, from the first forgotten to the last. Names are a person's own words
// and go in as text.
const root = element.querySelector(".stack");

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function percent(share) {
  return `${(100 * share.value).toFixed(1).replace(/\.0$/, "")} %`;
}

function act(name, action, words, { disabled = false } = {}) {
  const button = make("button", "stack-act", words);
  button.type = "button";
  button.disabled = disabled;
  button.dataset.action = action;
  button.setAttribute("aria-label", `${words} ${name}`);
  button.addEventListener("click", () => trigger("stack_change", { action, name }));
  return button;
}

function words(concept) {
  const box = make("div", "stack-words");
  const ground = concept.beneath.length ? `on top of ${concept.beneath.join(", ")}` : "on the unedited model";
  box.append(make("strong", "", concept.name), make("span", "", `${concept.units} units, grown ${ground}`));
  if (concept.stale) box.append(make("em", "", "What lies beneath it has changed since; grow it again to settle it."));
  return box;
}

function numbers({ numbers: found, on }) {
  if (!on) return make("p", "stack-numbers", "switched off");
  if (!found) return make("p", "stack-numbers", "not checked in this stack yet");
  const line = make("p", "stack-numbers");
  line.append(`${found.seen} ${percent(found.unedited)} before, ${percent(found.alone)} with its own patch, `,
    make("strong", "", `${percent(found.together)} with all`), ` (n = ${found.together.n})`);
  if (found.revived) line.append(make("span", "stack-revived", found.by ? `revived by ${found.by}` : "revived"));
  return line;
}

function row(concept, place, count) {
  const item = make("li", "stack-row");
  item.dataset.on = String(concept.on);
  const tools = make("div", "stack-tools");
  tools.append(
    act(concept.name, concept.on ? "off" : "on", concept.on ? "Switch off" : "Switch on"),
    act(concept.name, "down", "Earlier", { disabled: place === 0 }),
    act(concept.name, "up", "Later", { disabled: place === count - 1 }),
    act(concept.name, "again", "Grow again"),
    act(concept.name, "drop", "Remove"),
  );
  item.append(words(concept), numbers(concept), tools);
  return item;
}

function draw() {
  const value = props.value || {};
  const concepts = value.concepts || [];
  const list = make("ol", "stack-list");
  concepts.forEach((concept, place) => list.append(row(concept, place, concepts.length)));
  const empty = make("div", "empty-state");
  empty.append(make("strong", "", "One concept so far"), make("p", "", value.empty || ""));
  root.replaceChildren(concepts.length ? list : empty);
  root.dataset.concepts = String(concepts.length);
  root.dataset.ready = "true";
}

watch("value", draw);
draw();
