// The difference of a pair: what changed, twice as bright, on black. Worked out when a pair comes into sight, one pair
// at a time.
const BRIGHTER = 2;
const differences = new WeakMap();  // the element of a pair -> its difference
const waiting = new Set();  // those in sight and not worked out yet
const sight = new IntersectionObserver(look, { rootMargin: "200px 0px" });
let comparing = false;

function buildDifference() {
  const box = make("span", "pair-difference");
  const canvas = make("canvas");
  const words = make("span", "pair-blank");
  canvas.setAttribute("aria-hidden", "true");
  box.append(canvas, words);
  const amount = make("span", "pair-amount");
  return { box, canvas, words, amount, inSight: false, before: null, after: null, done: null };
}

function fillDifference(difference, before, after) {
  [difference.before, difference.after] = [safe(before), safe(after)];
  const key = keyOf(difference);
  if (key === null || key !== difference.done) tell(difference, key === null ? "not drawn yet" : "");
  queueDifference(difference);
}

function keyOf({ before, after }) {
  return before && after ? `${before} ${after}` : null;
}

function look(entries) {
  for (const { target, isIntersecting } of entries) {
    const difference = differences.get(target);
    difference.inSight = isIntersecting;
    queueDifference(difference);
  }
}

function queueDifference(difference) {
  const key = keyOf(difference);
  if (state.view !== "difference" || !difference.inSight || key === null || key === difference.done) return;
  waiting.add(difference);
  if (!comparing) compareAll();
}

async function compareAll() {
  comparing = true;
  for (const difference of waiting) {
    waiting.delete(difference);
    await compare(difference);
    await new Promise((next) => { setTimeout(next); });  // the page comes first
  }
  comparing = false;
}

async function compare(difference) {
  const key = keyOf(difference);
  if (key === null || key === difference.done) return;
  try {
    const found = difference.before === difference.after ? null : await subtract(difference.before, difference.after);
    if (key === keyOf(difference)) paint(difference, found);
  } catch {
    if (key === keyOf(difference)) tell(difference, "cannot be compared");
  }
  if (key === keyOf(difference)) difference.done = key;
}

function tell({ box, canvas, words, amount }, text, state = "waiting") {
  box.dataset.state = state;
  canvas.hidden = true;
  write(words, text);
  write(amount, "");
}

function paint(difference, found) {
  if (!found) return tell(difference, "identical", "identical");
  const { box, canvas, words, amount } = difference;
  box.dataset.state = "changed";
  canvas.hidden = false;
  write(words, "");
  write(amount, `${share(found.mean)} mean change`);
  [canvas.width, canvas.height] = [found.pixels.width, found.pixels.height];
  return canvas.getContext("2d").putImageData(found.pixels, 0, 0);
}

function share(mean) {
  return mean < 0.0005 ? "under 0.1 %" : `${(100 * mean).toFixed(1)} %`;
}

// null where every pixel is equal; else the picture to show and the mean change of a channel, a share of 1.
async function subtract(before, after) {
  const pictures = await Promise.all([before, after].map(decode));
  const { naturalWidth: width, naturalHeight: height } = pictures[0];
  const [one, other] = pictures.map((picture) => pixelsOf(picture, width, height));
  const pixels = new ImageData(width, height);
  let [sum, equal] = [0, pictures[1].naturalWidth === width && pictures[1].naturalHeight === height];
  for (let i = 0; i < one.length; i += 4) {
    for (let c = i; c < i + 3; c += 1) {
      const change = Math.abs(one[c] - other[c]);
      sum += change;
      pixels.data[c] = BRIGHTER * change;  // clamped to 255
    }
    equal = equal && one[i + 3] === other[i + 3];
    pixels.data[i + 3] = 255;
  }
  return equal && sum === 0 ? null : { pixels, mean: sum / (255 * 3 * width * height) };
}

async function decode(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

function pixelsOf(picture, width, height) {
  const canvas = make("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height).data;
}
