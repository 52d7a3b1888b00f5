// A picture dropped anywhere on the third screen is restored; a file dropped elsewhere does not take the page's place.
const WAIT = 3000;  // ms for the field to appear

// Where pictures are restored, while it is on view. Fields keep what is dropped on them to themselves.
const open = () => document.getElementById("restore")?.offsetParent;
const isFile = (event) => event.dataTransfer?.types.includes("Files") && !event.defaultPrevented;

document.addEventListener("dragover", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = open() ? "copy" : "none";
});

document.addEventListener("drop", async (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  const field = file && open() ? await emptied(document.getElementById("restore")) : null;
  if (!field) return;
  const carried = new DataTransfer();
  carried.items.add(file);
  field.files = carried.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
});

// The field for a file, its box open and an earlier file gone; null where it does not come.
async function emptied(box) {
  const field = () => box.querySelector("input[type=file]");
  const until = performance.now() + WAIT;
  if (!box.querySelector("[data-testid=accordion-content]")?.offsetParent) box.querySelector("button").click();
  while (!field() && performance.now() < until) {
    box.querySelector("[aria-label=Clear]")?.click();
    await new Promise((done) => setTimeout(done, 50));
  }
  box.scrollIntoView({ block: "nearest" });
  return field();
}
