// A picture dropped anywhere on the third screen is restored, and no file dropped beside a field takes the page's place.
const WAIT = 3000;  // ms for the field to appear

document.addEventListener("dragover", (event) => {
  if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
});

document.addEventListener("drop", async (event) => {
  if (event.defaultPrevented || !event.dataTransfer?.files.length) return;  // a field took it, or it is no file
  event.preventDefault();
  const picture = [...event.dataTransfer.files].find((file) => file.type === "image/png");
  const box = document.getElementById("restore");
  if (!picture || !box?.offsetParent) return;
  const field = await emptied(box);
  if (!field) return;
  const carried = new DataTransfer();
  carried.items.add(picture);
  field.files = carried.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
});

// The field for a file, its box open and an earlier file gone; null where it does not come.
async function emptied(box) {
  const field = () => box.querySelector("input[type=file]");
  const until = performance.now() + WAIT;
  if (!box.querySelector("[data-testid=accordion-content]").offsetParent) box.querySelector("button").click();
  while (!field() && performance.now() < until) {
    box.querySelector("[aria-label=Clear]")?.click();
    await new Promise((done) => setTimeout(done, 50));
  }
  box.scrollIntoView({ block: "nearest" });
  return field();
}
