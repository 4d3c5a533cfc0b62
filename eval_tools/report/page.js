// The page's data: names and colours by label, the scored labels, the models, and facts about each
// frame, whose parts are in its script element in the order of data.parts.
const data = JSON.parse(document.getElementById("data").textContent);
const several = data.models.length > 1;
// What a model is called: its name where there are others.
const called = (model) => (several ? data.models[model] : "prediction");
const end = (model) => (model ? String(model) : "");
// What may stand on either side of the divider; the values are names of layers.
const sides = {
  ...(data.labeled ? { truth: "truth" } : {}),
  ...Object.fromEntries(data.models.map((_, model) => ["model" + model, called(model)])),
  color: "colour",
};
// What frames are ordered by.
const measure = data.labeled ? "iou" : "confidence";
const measured = data.labeled ? "IoU" : "confidence";
const scored = new Set(data.scored);
const shown = new Set(data.names.keys());
const state = { order: [], at: 0, frame: null, cross: null };

// Labels are zlib-compressed and images are WebP; both are in the script element of their frame.
async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function picture(base64) {
  const image = new Image();
  image.src = "data:image/webp;base64," + base64;
  await image.decode();
  return image;
}

// The parts of a frame. Waits until the parser is past its element, whose text is then complete.
async function block(index) {
  while (!$("f" + (index + 1)) && document.readyState === "loading") {
    await new Promise((done) => setTimeout(done, 50));
  }
  return $("f" + index).textContent.split(" ");
}

// Pictures become canvases (frame.color) and their values (frame.colorPixels), label maps values.
async function load(index) {
  const [width, height] = data.frames[index].size;
  const frame = { index, width, height, found: [], layers: {} };
  const parts = await block(index);
  await Promise.all(data.parts.map(async (name, place) => {
    if (["color", "depth", "confidence"].includes(name)) {
      const image = await picture(parts[place]);
      const context = layer(frame).getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0, width, height);
      frame[name] = context.canvas;
      frame[name + "Pixels"] = context.getImageData(0, 0, width, height).data;
    } else if (name === "truth") {
      frame.truth = await unpack(parts[place]);
    } else {
      const model = +name.slice(5);
      const factor = model ? data.frames[index].others[model - 1].factor : 1;
      frame.found[model] = spread(await unpack(parts[place]), width, height, factor);
    }
  }));
  return frame;
}

// A label map of which only every factor-th pixel was kept, at full size.
function spread(labels, width, height, factor) {
  if (factor === 1) return labels;
  const across = Math.ceil(width / factor);
  return Uint8Array.from({ length: width * height }, (_, i) => (
    labels[Math.floor(Math.floor(i / width) / factor) * across
           + Math.floor((i % width) / factor)]));
}

// Where labels are not those of `truth`. all: whether every label counts, not only scored ones.
function errorLayer(frame, truth, found, all) {
  const { colorPixels } = frame;
  const off = packed(200, 150, 170);
  const on = packed(216, 27, 96);
  const counts = Uint8Array.from(data.names, (_, label) => all || scored.has(label));
  const visible = Uint8Array.from(data.names, (_, label) => shown.has(label));
  return paint(frame, (i) => {
    const grey = (colorPixels[4 * i] + colorPixels[4 * i + 1] + colorPixels[4 * i + 2]) / 12;
    if (!counts[truth[i]]) return packed(grey, grey, grey);
    if (truth[i] === found[i]) return packed(190 + grey, 190 + grey, 190 + grey);
    return visible[truth[i]] || visible[found[i]] ? on : off;
  });
}

function drawCompare() {
  const frame = state.frame;
  const split = $("split").value / 100;
  const edge = Math.round(split * frame.width);
  limitHeight("compare", frame);
  const context = compose("compare", frame, frame.color);
  context.globalAlpha = $("strength").value / 100;
  for (const [side, from, to] of [["left", 0, edge], ["right", edge, frame.width]]) {
    const image = frame.layers[$(side).value];
    const size = [from, 0, to - from, frame.height];
    if (image && to > from) context.drawImage(image, ...size, ...size);
  }
  $("divider").style.left = `calc(${100 * split}% - 1.5px)`;
  $("split").setAttribute("aria-valuetext", `${$("split").value} % ${sides[$("left").value]}`);
}

function drawLabels() {
  const frame = state.frame;
  const { truth, found, layers } = frame;
  if (truth) {
    layers.truth = labelLayer(frame, truth, data.colors, shown);
    compose("truth", frame, frame.color, layers.truth);
  }
  found.forEach((labels, model) => {
    layers["model" + model] = labelLayer(frame, labels, data.colors, shown);
    compose("prediction" + end(model), frame, frame.color, layers["model" + model]);
    if (truth) compose("error" + end(model), frame, errorLayer(frame, truth, labels, false));
    else if (model) compose("error" + model, frame, errorLayer(frame, found[0], labels, true));
  });
  drawCompare();
}

// The names of what stands on both sides, in the words beside the slider and of the picture.
function nameSides() {
  const [left, right] = [sides[$("left").value], sides[$("right").value]];
  $("sides").textContent = `Divider: ${left} left, ${right} right`;
  const text = `${left} left of the divider, ${right} right of it`;
  $("compare").setAttribute("aria-label", text[0].toUpperCase() + text.slice(1));
}

const percent = (value) => (value === null ? "not defined" : (100 * value).toFixed(1) + " %");

function describe(index) {
  const about = data.frames[index];
  const own = [about, ...about.others].map((facts, model) => {
    const of = several ? `${called(model)}: ` : "";
    if (!data.labeled) {
      const same = model ? `, ${percent(facts.same)} labelled alike` : "";
      return `${of}mean confidence ${percent(facts.confidence)}, `
        + `${percent(facts.unsure)} of the pixels below 50 %${same}`;
    }
    return `${of}pixel accuracy ${percent(facts.accuracy)}, mean IoU ${percent(facts.iou)}`;
  });
  const parts = [own.join("; ")];
  if (data.labeled) parts.push(`${about.pixels} scored pixels`);
  parts.push(`${about.size.join("x")}`);
  if (about.step > 1) parts.push(`every ${about.step}th pixel of the labels is shown`);
  if (about.scene) parts.push(describeScene(about));
  return parts.join(", ");
}

function describeScene(about) {
  const [truth, found] = about.scene.map((scene) => data.scenes[scene]);
  if (!data.labeled) return `scene ${found}`;
  return truth === found ? `scene ${truth}, recognised` : `scene ${truth}, taken for ${found}`;
}

// Pixels of each label in the truth, if there is one, and in the predictions, for the legend.
function count(frame) {
  const maps = frame.truth ? [frame.truth, ...frame.found] : frame.found;
  const counts = data.names.map(() => maps.map(() => 0));
  maps.forEach((labels, place) => {
    for (let i = 0; i < labels.length; i++) counts[labels[i]][place]++;
  });
  return counts;
}

function updateLegend() {
  const counts = count(state.frame);
  counts.forEach((pixels, label) => {
    const row = $("l" + label);
    if (!row) return;
    const some = pixels.some((number) => number);
    row.querySelector(".pixels").textContent = some ? pixels.join(" / ") : "";
    row.hidden = !some && data.names.length > 14;
  });
}

function updateShown() {
  if (state.frame) drawLabels();
}

async function show(place) {
  if (!state.order.length) return;
  state.at = (place + state.order.length) % state.order.length;
  const index = state.order[state.at];
  $("frame").value = index;
  $("position").textContent = `${state.at + 1} of ${state.order.length}`;
  const frame = await load(index);
  if (state.order[state.at] !== index) return;  // the user has moved on to another frame
  state.frame = frame;
  state.cross = null;
  $("cross").style.display = "none";
  $("name").textContent = data.frames[index].key;
  $("facts").textContent = describe(index);
  updateLegend();
  compose("color", frame, frame.color);
  compose("depth", frame, frame.depth);
  if (frame.confidence) compose("confidence", frame, frame.confidence);
  drawLabels();
  document.body.dataset.frame = index;
}

function readout(x, y) {
  const frame = state.frame;
  const i = y * frame.width + x;
  const step = data.frames[frame.index].step;
  const [r, g, b] = frame.colorPixels.subarray(4 * i, 4 * i + 3);
  $("readout").textContent = `x ${x * step}, y ${y * step}: ${labelsAt(frame, i)}`
    + `; depth about ${frame.depthPixels[4 * i]} of 255; colour ${r}, ${g}, ${b}`;
}

// What truth and models say of pixel i.
function labelsAt(frame, i) {
  const truth = frame.truth && frame.truth[i];
  const parts = frame.truth ? [`truth ${data.names[truth]}`] : [];
  frame.found.forEach((labels, model) => {
    const right = labels[i] === truth ? " (right)" : " (wrong)";
    const judged = !frame.truth ? "" : scored.has(truth) ? right : " (not scored)";
    parts.push(`${called(model)} ${data.names[labels[i]]}${judged}`);
  });
  if (frame.confidence) {
    const sure = Math.round(frame.confidencePixels[4 * i] / 2.55);
    parts.push(`confidence${several ? ` of ${called(0)}` : ""} about ${sure} %`);
  }
  return parts.join(", ");
}

function setSplit(value) {
  $("split").value = value;
  drawCompare();
}

function watchPictures() {
  for (const canvas of document.querySelectorAll(".stage canvas")) {
    canvas.addEventListener("pointermove", (event) => {
      if (!state.frame) return;
      const at = pointed(event, state.frame);
      $("readout").setAttribute("aria-live", "off");
      readout(...at);
      if (canvas.id === "compare" && event.buttons) setSplit(100 * at[0] / state.frame.width);
    });
  }
  $("compare").addEventListener("pointerdown", (event) => {
    if (state.frame) setSplit(100 * pointed(event, state.frame)[0] / state.frame.width);
    event.currentTarget.setPointerCapture(event.pointerId);
  });
  $("compare").addEventListener("keydown", (event) => {
    const at = state.frame && arrowed(event, state.frame, state.cross);
    if (!at) return;
    // Screen readers announce pixels chosen by keyboard, not those that the pointer passes.
    $("readout").setAttribute("aria-live", "polite");
    state.cross = placeCross(state.frame, ...at);
    readout(...state.cross);
  });
}

// The classes on which truth and predictions, or else the predictions, disagree in this frame.
function confused() {
  const labels = new Set();
  const { truth, found } = state.frame;
  const judge = truth ?? found[0];
  for (const guess of found) {
    for (let i = 0; i < judge.length; i++) {
      if ((!truth || scored.has(truth[i])) && judge[i] !== guess[i]) {
        labels.add(judge[i]).add(guess[i]);
      }
    }
  }
  return labels;
}

function describeLegend() {
  $("wrong").addEventListener("click", () => state.frame && choose(confused(), shown, updateShown));
  $("wrong").textContent = data.labeled ? "Confused here" : "Unlike here";
  $("wrong").hidden = !data.labeled && !several;
  const counted = [...(data.labeled ? ["truth"] : []), ...data.models.map((_, k) => called(k))];
  $("counted").textContent = `Pixels in ${counted.join(" / ")}`;
}

const byMeasure = (a, b) => (data.frames[a][measure] ?? 2) - (data.frames[b][measure] ?? 2);

// How much more one of the other models reaches than the first.
const ahead = (index, model) => {
  const { others, [measure]: own } = data.frames[index];
  return data.labeled ? (others[model - 1].iou ?? 0) - (own ?? 0) : -others[model - 1].same;
};

function arrange() {
  const label = $("holding").value === "" ? null : +$("holding").value;
  const holds = (facts) => facts.found.includes(label) || (facts.truth ?? []).includes(label);
  state.order = [...data.frames.keys()].filter((i) => label === null
    || [data.frames[i], ...data.frames[i].others].some(holds));
  const [order, model] = $("order").value.split(" ");
  if (order === "worst") state.order.sort(byMeasure);
  if (order === "best") state.order.sort((a, b) => -byMeasure(a, b));
  if (order === "behind") state.order.sort((a, b) => ahead(a, +model) - ahead(b, +model));
  if (order === "ahead") state.order.sort((a, b) => ahead(b, +model) - ahead(a, +model));
  $("frame").replaceChildren(...state.order.map((i) => {
    const option = document.createElement("option");
    option.value = i;
    option.textContent = `${data.frames[i].key} (${measured} ${percent(data.frames[i][measure])})`;
    return option;
  }));
}

function addOptions(id, options) {
  for (const [value, text] of options) {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    $(id).append(option);
  }
}

function orders() {
  const [first, last] = data.labeled ? ["worst IoU", "best IoU"] : ["least sure", "surest"];
  const found = [["worst", `${first} first`], ["best", `${last} first`], ["stored", "as stored"]];
  data.models.slice(1).forEach((name, k) => {
    if (!data.labeled) found.push([`ahead ${k + 1}`, `least like ${name} first`]);
    else {
      found.push([`ahead ${k + 1}`, `${name} ahead first`]);
      found.push([`behind ${k + 1}`, `${name} behind first`]);
    }
  });
  return found;
}

function buildSides() {
  for (const id of ["left", "right"]) {
    addOptions(id, Object.entries(sides));
    $(id).addEventListener("change", () => {
      nameSides();
      if (state.frame) drawCompare();
    });
  }
  // One model against another where there are two; else the truth, or the frame, against it.
  $("left").value = data.labeled && !several ? "truth" : several ? "model0" : "color";
  $("right").value = several ? "model1" : "model0";
  nameSides();
}

function buildPicker() {
  addOptions("order", orders());
  addOptions("holding", data.scored.map((label) => [label, `with ${data.names[label]}`]));
  for (const id of ["order", "holding"]) {
    $(id).addEventListener("change", () => { arrange(); show(0); });
  }
  $("frame").addEventListener("change", () => show(state.order.indexOf(+$("frame").value)));
  $("previous").addEventListener("click", () => show(state.at - 1));
  $("next").addEventListener("click", () => show(state.at + 1));
  for (const id of ["split", "strength"]) {
    $(id).addEventListener("input", () => state.frame && drawCompare());
  }
}

// Six thumbnails each of the worst and best frames, loaded when they become visible.
function buildEnds() {
  const ranked = [...data.frames.keys()].filter((i) => data.frames[i][measure] !== null)
    .sort(byMeasure);
  $("worst-title").textContent = data.labeled ? "Worst" : "Least sure";
  $("best-title").textContent = data.labeled ? "Best" : "Surest";
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      block(+target.dataset.index).then(([color]) => {
        target.src = "data:image/webp;base64," + color;
      });
    }
  });
  for (const [id, list] of [["worst", ranked.slice(0, 6)], ["best", ranked.slice(-6).reverse()]]) {
    for (const index of list) {
      const item = document.createElement("li");
      item.innerHTML = '<button type="button"><img alt=""><span></span><span></span></button>';
      const [image, name, iou] = item.firstChild.children;
      image.dataset.index = index;
      name.textContent = data.frames[index].key;
      const value = percent(data.frames[index][measure]);
      iou.textContent = data.labeled ? `IoU ${value}` : `${value} sure`;
      item.firstChild.addEventListener("click", () => {
        $("holding").value = "";
        arrange();
        show(state.order.indexOf(index));
      });
      $(id).append(item);
      seen.observe(image);
    }
  }
}

// Clicking a heading sorts the table by that column.
function buildTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].textContent.trim();
        const compare = (a, b) => (column === 0 ? value(b).localeCompare(value(a))
          : (parseFloat(value(a)) || -1) - (parseFloat(value(b)) || -1));
        const rows = [...table.tBodies[0].rows].sort(compare);
        table.tBodies[0].append(...(down ? rows.reverse() : rows));
      });
    });
  }
  for (const table of document.querySelectorAll("table.confusion")) {
    const said = table.closest("section").querySelector("output");
    table.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("td");
      if (!cell) return;
      const column = table.tHead.rows[0].cells[cell.cellIndex];
      said.textContent = `True ${cell.parentNode.cells[0].textContent} as `
        + `${column.textContent}: ${cell.dataset.n} pixels.`;
    });
  }
}

function buildNav() {
  for (const section of document.querySelectorAll("main > section")) {
    const link = document.createElement("a");
    link.href = "#" + section.id;
    link.textContent = section.querySelector("h2").textContent;
    document.querySelector("nav").append(link);
  }
}

buildNav();
buildLegend(data.names, data.colors, shown, updateShown);
describeLegend();
buildPicker();
buildSides();
buildEnds();
buildTables();
watchPictures();
watchKeys({
  n: () => show(state.at + 1), p: () => show(state.at - 1),
  t: () => setSplit(100), r: () => setSplit(0), b: () => setSplit(50),
  a: () => choose(data.names.keys(), shown, updateShown), o: () => choose([], shown, updateShown),
});
arrange();
show(0);
